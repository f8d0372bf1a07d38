"""Whether Triton's kernels run here: asked of the device itself, once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType

import torch

from dropclass_deploy.core.errors import first_line


def working(kernels: ModuleType, smallest_call: Callable[[], object], device: torch.device) -> ModuleType | None:
    """``kernels``, when their smallest call runs on the device; else None, with one warning that says why.

    Triton compiles at the first call: it needs a C compiler, a chip that is new enough and a driver that fits, and has an
    error of another type for each.
    """
    try:
        smallest_call()
    except Exception as error:
        warnings.warn(
            f"Triton's kernels do not run on {device} ({first_line(error)}): plain operations run instead, slower",
            stacklevel=2,
        )
        return None
    return kernels
