"""Ctrl-C and SIGTERM as a request to stop after the step at hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from dropclass_deploy.core.errors import TrainingInterruptedError
from dropclass_deploy.core.progress import Advance, Reporter


class StopSignals:
    """Context manager: ``requested`` turns true at the first SIGINT or SIGTERM; a second one acts as usual.

    Outside the main thread Python delivers no signals, and nothing is installed.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._request) for number in self._SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class StoppableReporter:
    """A reporter whose phases end with ``TrainingInterruptedError`` at the first report after a signal."""

    def __init__(self, reporter: Reporter, signals: StopSignals, message: str) -> None:
        self._reporter = reporter
        self._signals = signals
        self._message = message

    def note(self, text: str) -> None:
        """Passed on."""
        self._reporter.note(text)

    @contextmanager
    def phase(self, title: str) -> Iterator[Advance]:
        """The reporter's phase, watched."""
        with self._reporter.phase(title) as advance:

            def watched(done: int, total: int, status: str = "", /) -> None:
                advance(done, total, status)
                if self._signals.requested:
                    raise TrainingInterruptedError(self._message)

            yield watched
