"""HRNetV1-W18-Small and HRNetV2-W18-Small with the segmentation head of HRNetV2.

Wang et al., *Deep High-Resolution Representation Learning for Visual Recognition*, arXiv 1908.07919. Backbones: timm's
``hrnet_w18_small`` and ``hrnet_w18_small_v2``, without the channel-raising modules of their classification head. Both get
the same head (Section 3.2, "HRNetV2"): the four streams at strides 4, 8, 16 and 32 resized to stride 4 and concatenated,
1×1 convolution, BatchNorm, ReLU, linear 1×1 classifier. "V1" and "V2" name the depth of the backbone, as in the authors'
code of DropClass, not the head.
"""

from __future__ import annotations

from typing import cast

import timm
import torch
from torch import Tensor, nn

from dropclass_deploy.models.encoders import backbone_target, timm_weights
from dropclass_deploy.models.fitting import Target, load_fitting
from dropclass_deploy.models.network import ConvNormReLU, SegmentationNetwork, resized


class Exchange(nn.Module):
    """timm's ``HighResolutionModule`` for images of any size: the same parameters under the same names.

    timm enlarges a coarse stream by a fixed factor of 2, 4 or 8, which gives the size of the fine one only where that
    divides it. Here the last rows and columns that are too many fall off; where the factor divides, the numbers are
    timm's own, bit for bit. (A resize to the size wanted would shift the streams against each other, and pick its source
    pixels by floating-point coordinates, which runtimes round each in its own way.)
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.branches = cast(nn.ModuleList, module.branches)
        self.fuse_layers = cast(nn.ModuleList, module.fuse_layers)
        self.fuse_act = cast(nn.Module, module.fuse_act)

    def forward(self, streams: list[Tensor]) -> list[Tensor]:
        """One map a stream, finest first, each (N, K_i, H_i, W_i) → the same shapes."""
        if len(self.branches) == 1:
            return [self.branches[0](streams[0])]
        streams = [branch(stream) for branch, stream in zip(self.branches, streams, strict=True)]
        return [
            self.fuse_act(self._sum(cast(nn.ModuleList, layers), streams, into))
            for into, layers in enumerate(self.fuse_layers)
        ]

    def _sum(self, layers: nn.ModuleList, streams: list[Tensor], into: int) -> Tensor:
        height, width = streams[into].shape[-2:]
        parts = [layer(stream) for layer, stream in zip(layers, streams, strict=True)]
        # Left to right, as timm sums: another order would round otherwise.
        total = parts[0]
        for source, part in enumerate(parts[1:], start=1):
            total = total + (part[..., :height, :width] if source > into else part)
        return cast(Tensor, total)


class StreamsHead(nn.Module):
    """Streams at strides 4 … 32 → one map (N, K, H/4, W/4), K the sum of their channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fuse = ConvNormReLU(channels, channels, kernel=1)

    def forward(self, streams: list[Tensor]) -> Tensor:
        """Concatenate at the size of the first, mix."""
        maps = [streams[0], *(resized(stream, streams[0]) for stream in streams[1:])]
        return cast(Tensor, self.fuse(torch.cat(maps, dim=1)))


def exchange_at_any_size(backbone: nn.Module) -> None:
    """Replace the exchange modules of a timm HRNet in place."""
    for stage in map(backbone.get_submodule, ("stage2", "stage3", "stage4")):
        for name, module in stage.named_children():
            setattr(stage, name, Exchange(module))


def hrnet(backbone: str, num_classes: int) -> SegmentationNetwork:
    """timm's HRNet ``backbone`` with random weights, its four streams and the segmentation head."""
    encoder = timm.create_model(
        backbone, pretrained=False, features_only=True, feature_location="", out_indices=(1, 2, 3, 4)
    )
    exchange_at_any_size(encoder)
    channels = sum(encoder.feature_info.channels())
    return SegmentationNetwork(encoder, StreamsHead(channels), channels, num_classes)


def hrnetv1_w18_small(num_classes: int, weights: str | None = None) -> nn.Module:
    """Build HRNetV1-W18-Small.

    Args:
        num_classes: C.
        weights: None; ``"imagenet"`` or a name of timm's (``"hrnet_w18_small.ms_in1k"``), from its hub; or a local file
            with the state dict of timm's classification network or of the whole network.

    Raises:
        ModelError: for weights that cannot be found or do not fit.
    """
    return _pretrained("hrnet_w18_small", num_classes, weights)


def hrnetv2_w18_small(num_classes: int, weights: str | None = None) -> nn.Module:
    """Build HRNetV2-W18-Small; arguments and errors as for ``hrnetv1_w18_small``."""
    return _pretrained("hrnet_w18_small_v2", num_classes, weights)


def _pretrained(backbone: str, num_classes: int, weights: str | None) -> nn.Module:
    network = hrnet(backbone, num_classes)
    if weights is not None:
        targets = [Target(network), backbone_target(backbone, network.encoder)]
        load_fitting(targets, timm_weights(backbone).read(weights), weights, num_classes)
    return network
