"""U-Net, from scratch or with a timm backbone as its contracting path.

Ronneberger et al., *U-Net*, arXiv 1505.04597. Differences, all common today: convolutions are padded, so that the logits
cover the whole image, and each is followed by BatchNorm; on the way up the channels are halved by a 1×1 convolution and
the map is resized bilinearly to the skip's size (the paper: upsampling, then a 2×2 convolution, and the skip is cropped),
so that images of any size go through; pooling rounds odd sizes up, for the same reason.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models.encoders import backbone_target, timm_encoder, timm_weights
from dropclass_deploy.models.fitting import Target, load_fitting
from dropclass_deploy.models.network import ConvNormReLU, SegmentationNetwork, check_option, resized
from dropclass_deploy.models.weights import Weights

DEPTH = 4


class DoubleConv(nn.Sequential):
    """Two 3×3 convolutions, each with BatchNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(ConvNormReLU(inputs, outputs, kernel=3), ConvNormReLU(outputs, outputs, kernel=3))


class Contracting(nn.Module):
    """Images → maps at strides 1, 2, 4, …, one a level."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            DoubleConv(inputs, outputs) for inputs, outputs in zip([3, *channels], channels, strict=False)
        )
        self.pool = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps, finest first."""
        maps = [self.levels[0](images)]
        for level in self.levels[1:]:
            maps.append(level(self.pool(maps[-1])))
        return maps


class Up(nn.Module):
    """One step up: halve the channels, resize to the skip, concatenate, two convolutions."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        # Before the resize, not after: both are linear and commute, and a quarter of the pixels is a quarter of the work.
        self.reduce = nn.Conv2d(inputs, outputs, 1)
        self.convs = DoubleConv(outputs + skip, outputs)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """(N, inputs, h, w) and (N, skip, H, W) → (N, outputs, H, W)."""
        merged: Tensor = self.convs(torch.cat([skip, resized(self.reduce(coarse), skip)], dim=1))
        return merged


class Expanding(nn.Module):
    """Maps of the contracting path, finest first → one map of the finest one's size."""

    def __init__(self, skips: list[int], width: int) -> None:
        super().__init__()
        outputs = [width * 2**level for level in range(len(skips) - 1)]
        inputs = [*outputs[1:], skips[-1]]
        self.steps = nn.ModuleList(map(Up, inputs, skips[:-1], outputs))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """(N, width, H, W)."""
        result = maps[-1]
        for step, skip in zip(reversed(self.steps), reversed(maps[:-1]), strict=True):
            result = step(result, skip)
        return result


def unet(
    num_classes: int,
    weights: str | None = None,
    *,
    width: int = 32,
    depth: int | None = None,
    encoder: str | None = None,
) -> nn.Module:
    """Build a U-Net.

    Args:
        num_classes: C.
        weights: None; a local file with the state dict of the whole network; with an ``encoder`` also what
            ``timm:NAME`` takes.
        width: channels of the first level, doubled at each next one, 4–256; the paper has 64. With an ``encoder``, of the
            expanding path.
        depth: how often the resolution is halved, 1–6; default 4, as in the paper. With an ``encoder``: how many steps up
            there are, default as many as it has levels to go.
        encoder: name of a timm backbone to be the contracting path; the logits then have its finest stride before the
            last resize.

    Raises:
        ModelError: for weights that cannot be found or do not fit, an option out of range, or an unknown backbone.
    """
    check_option("width", width, range(4, 257), "channels of the first level")
    if depth is not None:
        check_option("depth", depth, range(1, 7), "steps")
    if encoder is not None:
        return _on_backbone(encoder, num_classes, weights, width, depth)
    channels = [width * 2**level for level in range((depth or DEPTH) + 1)]
    network = SegmentationNetwork(Contracting(channels), Expanding(channels, width), width, num_classes, full_size=True)
    if weights is not None:
        load_fitting([Target(network)], Weights().read(weights), weights, num_classes)
    return network


def _on_backbone(name: str, num_classes: int, weights: str | None, width: int, depth: int | None) -> nn.Module:
    if not isinstance(name, str):
        raise ModelError(f"encoder is {name!r}", expected="the name of a timm backbone")
    name = name.removeprefix("timm:")
    encoder = timm_encoder(name, finest=1, count=None if depth is None else depth + 1)
    network = SegmentationNetwork(encoder, Expanding(encoder.channels, width), width, num_classes)
    if weights is not None:
        targets = [Target(network), backbone_target(name, encoder.backbone)]
        load_fitting(targets, timm_weights(name).read(weights), weights, num_classes)
    return network
