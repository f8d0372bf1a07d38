"""Libraries that talk while they work, kept off the user's terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

_LOGGERS = ("torch", "onnxscript", "onnx_ir", "nncf", "onnxruntime")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings, log lines, progress bars and printed graphs of the exporting and quantising libraries."""
    loggers = [logging.getLogger(), *map(logging.getLogger, _LOGGERS)]
    handlers = [handler for logger in loggers for handler in logger.handlers]
    levels = [handler.level for handler in handlers]
    disabled = logging.root.manager.disable
    sink = io.StringIO()
    try:
        for handler in handlers:
            handler.setLevel(logging.CRITICAL + 1)
        logging.disable(logging.CRITICAL)
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)
