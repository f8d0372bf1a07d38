"""Entering a room that needs torch: a missing package becomes one clear error with the extra that brings it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dropclass_deploy.core.errors import MissingExtraError

_OPTIONAL = {"torch", "torchvision", "timm", "accelerate", "safetensors", "onnx", "onnxscript", "matplotlib", "jinja2"}


@contextmanager
def torch_room(extra: str) -> Iterator[None]:
    """Imports inside the block may fail for a missing optional package only.

    Raises:
        MissingExtraError: naming the package and the extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _OPTIONAL:
            raise
        raise MissingExtraError(package, extra) from error
