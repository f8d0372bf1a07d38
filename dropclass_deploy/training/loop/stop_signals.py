"""Ctrl-C and SIGTERM as a request to stop after the step at hand."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

_SAME_WISH_S = 2.0


class StopSignals:
    """Context manager: ``requested`` turns true at the first SIGINT or SIGTERM.

    The state is then being saved, so that later SIGTERMs are not heard: a scheduler and torchrun may send one each. A second
    Ctrl-C acts as usual; one within two seconds of the first signal means the same wish.

    Outside the main thread Python delivers no signals, and nothing is installed.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._request) for number in self._SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _request(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.requested:
            self.requested, self._since = True, now
        elif number == signal.SIGINT and now - self._since > _SAME_WISH_S and callable(self._before[number]):
            self._before[number](number, frame)
