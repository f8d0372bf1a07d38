"""What networks return as logits, whoever wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dropclass_deploy.core.errors import ModelError


def logits_of(output: Any) -> Tensor:
    """The logits (N, C, h, w) in a network's output: a tensor, ``output["out"]`` or ``output.logits``.

    Raises:
        ModelError: when the output is none of the three, or not four-dimensional.
    """
    logits = output
    if isinstance(output, Mapping):
        logits = output.get("out", output.get("logits"))
    elif not isinstance(output, Tensor):
        logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim != 4:
        found = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(output).__name__
        raise ModelError(
            f"the model returned {found}",
            expected='logits (N, C, H, W): a tensor, a dict with "out", or an object with .logits',
        )
    return logits
