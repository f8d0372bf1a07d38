"""A hint when the network waits for its data."""

from __future__ import annotations

_TOO_MUCH = 0.3
_SEEN_ENOUGH_S = 5.0


class DataWait:
    """Says once in a run that too much time goes by waiting for data, and which key mends it.

    The first window of steps, in which the workers start, does not count; then one or more that last five seconds together
    are judged as a whole, so that a single slow file is no reason.

    Args:
        workers: processes that read ahead.
        cores: that they and this process may use.
    """

    def __init__(self, workers: int, cores: int) -> None:
        self._workers, self._cores = workers, cores
        self._started = self._said = False
        self._seconds = self._waited = 0.0

    def hint(self, share: float, seconds: float) -> str | None:
        """Take in a window of steps: the share of its seconds spent waiting; a line for the log when it is time for one."""
        if not self._started:
            self._started = True
            return None
        self._seconds += seconds
        self._waited += share * seconds
        if self._said or self._seconds < _SEEN_ENOUGH_S:
            return None
        share = self._waited / self._seconds
        self._seconds = self._waited = 0.0
        if share <= _TOO_MUCH:
            return None
        self._said = True
        return (
            f"{share:.0%} of the time goes by waiting for data: set train.workers higher (now {self._workers}; this process "
            f"may use {self._cores} core{'' if self._cores == 1 else 's'}), or store images nearer to train.crop's size"
        )
