"""Versions of what a measurement ran on."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable

LIBRARIES = ("dropclass-deploy", "numpy", "pillow", "onnxruntime", "onnxruntime-gpu")


def library_versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Python's version and that of each installed distribution out of ``LIBRARIES`` and ``more``; none is imported."""
    found = {"python": platform.python_version()}
    for name in (*LIBRARIES, *more):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
