"""A trained network as deployment needs it: on the CPU, in eval mode, with float32 logits at the input's size."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.core.classes import MAX_CLASSES
from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models import logits_of


class ResizedLogits(nn.Module):
    """Any segmentation network as (N, 3, H, W) → float32 logits (N, C, H, W).

    Logits of another size (a network that stops at a quarter of the resolution) are brought to the input's size by
    bilinear interpolation with ``align_corners=False``.

    Attributes:
        resize: True resizes always, False never, None where the sizes differ. A traced network needs a fixed answer:
            a comparison of symbolic sizes would tie the graph to the sizes of its example.
    """

    def __init__(self, model: nn.Module, resize: bool | None = None) -> None:
        super().__init__()
        self.model = model
        self.resize = resize

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) of images (N, 3, H, W)."""
        logits = logits_of(self.model(images)).float()
        size = images.shape[-2:]
        resize = logits.shape[-2:] != size if self.resize is None else self.resize
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False) if resize else logits


def deployable(model: nn.Module) -> nn.Module:
    """A float32 copy of ``model`` on the CPU in eval mode without gradients; ``model`` itself is not touched.

    Raises:
        ModelError: when the module cannot be copied.
    """
    try:
        twin = copy.deepcopy(model)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the model {type(model).__name__} cannot be copied: {first_line(error)}",
            expected="a module that copy.deepcopy can copy",
            remedy="remove tensors with history and open handles from its attributes before exporting",
        ) from error
    return twin.to(device="cpu", dtype=torch.float32).eval().requires_grad_(False)


def checked_classes(channels: int) -> int:
    """``channels`` itself when a uint8 mask can hold that many classes.

    Raises:
        ModelError: when there are fewer than 2 or more than 255.
    """
    if not 2 <= channels <= MAX_CLASSES:
        raise ModelError(
            f"the model gives logits of {channels} classes",
            expected=f"2 … {MAX_CLASSES} classes (masks are uint8, 255 is ignore)",
        )
    return channels


def run_example(model: nn.Module, example: Tensor) -> Tensor:
    """The network's own logits (N, C, h, w) of ``example`` (N, 3, H, W), at the size it gives them.

    Raises:
        ModelError: with the network's own complaint when it cannot run on the example.
    """
    try:
        with torch.inference_mode():
            return logits_of(model(example))
    except ModelError:
        raise
    except Exception as error:
        # The network is the caller's code: it may raise anything, and whatever it raises is the reason to show.
        raise ModelError(
            f"the model {type(model).__name__} cannot run on images of shape {tuple(example.shape)}: "
            f"{type(error).__name__}: {first_line(error)}",
            expected="a network that maps float32 images (N, 3, H, W) to logits (N, C, H, W)",
        ) from error


def first_line(error: BaseException, limit: int = 200) -> str:
    """The first line of an error's text, with the next one when it ends in a colon; at most ``limit`` characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:limit]
