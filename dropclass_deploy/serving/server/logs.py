"""Where log lines go: the access log to stdout as it is, all else to stderr; never at the price of an answer."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import TextIO

_WAITING = 10_000
"""Lines that may wait for a reader; one that stalls longer loses the newest."""
_EVERY_S = 0.1
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


class _Writer(logging.Handler):
    """Keeps lines until a thread of its own writes them, several at once.

    A thread that woke up for every line would take Python's lock from the event loop as often.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._lines: deque[logging.LogRecord] = deque()
        self._stream, self._lost = stream, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Without waiting, and without making the text yet."""
        if len(self._lines) >= _WAITING:
            self._lost += 1
        else:
            self._lines.append(record)

    def finish(self) -> None:
        """Write what waits, unless nobody reads it."""
        self._over.set()
        self._thread.join(_END_S)

    def _work(self) -> None:
        while not self._over.wait(_EVERY_S):
            self._write()
        self._write()

    def _write(self) -> None:
        lost, self._lost = self._lost, 0
        texts = [self.format(self._lines.popleft()) for _ in range(len(self._lines))]
        texts += [f'{{"event": "log", "lost": {lost}}}'] if lost else []
        # A reader that went away is none of the clients' business.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write("".join(f"{text}\n" for text in texts))
            self._stream.flush()
