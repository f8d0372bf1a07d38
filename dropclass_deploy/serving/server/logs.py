"""Where log lines go: the access log to stdout as it is, all else to stderr; never at the price of an answer."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import queue
import sys
import threading
from collections.abc import Iterator
from typing import TextIO

_WAITING = 10_000
"""Lines that may wait for a reader; one that stalls longer loses the newest."""
_END_S = 2.0


@contextlib.contextmanager
def logging_beside() -> Iterator[None]:
    """Write log lines in a thread of their own inside the block: a pipe whose reader stalls must not stop the server."""
    added = []
    outputs = {
        "dropclass_deploy.access": (sys.stdout, logging.INFO),
        "dropclass_deploy.server": (sys.stderr, logging.INFO),
        "uvicorn.error": (sys.stderr, logging.WARNING),
    }
    writers = {stream: _Writer(stream) for stream in (sys.stdout, sys.stderr)}
    for name, (stream, level) in outputs.items():
        logger = logging.getLogger(name)
        logger.addHandler(writers[stream])
        logger.setLevel(level)
        logger.propagate = False
        added.append((logger, writers[stream]))
    try:
        yield
    finally:
        for logger, writer in added:
            logger.removeHandler(writer)
        for writer in writers.values():
            writer.finish()


class _Writer(logging.handlers.QueueHandler):
    """Puts lines into a queue, from which a thread writes them."""

    def __init__(self, stream: TextIO) -> None:
        self._lines: queue.Queue[logging.LogRecord | None] = queue.Queue(_WAITING)
        super().__init__(self._lines)
        self._stream, self._lost = stream, 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Without waiting."""
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self._lost += 1

    def finish(self) -> None:
        """Write what waits, unless nobody reads it."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=_END_S)
        self._thread.join(_END_S)

    def _write(self) -> None:
        while (record := self._lines.get()) is not None:
            lost, self._lost = self._lost, 0
            told = f'{{"event": "log", "lost": {lost}}}\n' if lost else ""
            # A reader that went away is none of the clients' business.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(f"{told}{record.getMessage()}\n")
                self._stream.flush()
