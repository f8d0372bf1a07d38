"""timm's TensorFlow-style padding by constants, so that networks with it export in seconds and take any size."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn


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
        if isinstance(child, Conv2dSame) and child.stride == (2, 2) and child.dilation == (1, 1):
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
