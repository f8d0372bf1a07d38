"""The form that the package's own networks share: encoder, decoder, linear classifier, resize."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError


def resized(maps: Tensor, like: Tensor) -> Tensor:
    """``maps`` (N, K, h, w) brought to the height and width of ``like``, bilinearly with ``align_corners=False``."""
    return F.interpolate(maps, size=like.shape[-2:], mode="bilinear", align_corners=False)


class ConvNormReLU(nn.Sequential):
    """Convolution without bias that keeps the size, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class SegmentationNetwork(nn.Module):
    """Images (N, 3, H, W) → logits (N, C, H, W) by three parts that DropClass and pretrained weights know by name.

    Args:
        encoder: images → list of feature maps, the finest first.
        decoder: that list → one map (N, K, h, w) that ends in an activation module. Where that is a ReLU, DropClass knows
            that no feature is negative, and its folded head keeps K inputs instead of 2K.
        channels: K.
        num_classes: C.
        full_size: whether (h, w) is (H, W) already, so that nothing is left to resize.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, channels: int, num_classes: int, *, full_size: bool = False
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        self.full_size = full_size

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) of images (N, 3, H, W)."""
        logits = self.classifier(self.decoder(self.encoder(images)))
        return cast(Tensor, logits) if self.full_size else resized(logits, images)


def check_option(name: str, value: object, allowed: range, unit: str) -> None:
    """Refuse an option that is no whole number in ``allowed``.

    Raises:
        ModelError: with the range.
    """
    if type(value) is not int or value not in allowed:
        raise ModelError(f"{name} is {value!r}", expected=f"{allowed[0]} … {allowed[-1]} {unit}")


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuse an option that is none of ``allowed``.

    Raises:
        ModelError: with the choices.
    """
    if value not in allowed:
        raise ModelError(f"{name} is {value!r}", expected=f"one of {', '.join(allowed)}")


def check_switch(name: str, value: object) -> None:
    """Refuse an option that is neither True nor False.

    Raises:
        ModelError: for anything else, 0 and 1 included.
    """
    if type(value) is not bool:
        raise ModelError(f"{name} is {value!r}", expected="true or false")
