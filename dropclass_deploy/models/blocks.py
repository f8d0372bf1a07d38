"""A block of 3×3 convolutions whose normalisation, activation, shortcut and dropout can each be switched off.

For networks that are built to ask what a part is good for: everything else stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models.network import check_choice

NORMS = ("batch", "none")
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "gelu": nn.GELU,
    "none": nn.Identity,
}


@dataclass(frozen=True)
class BlockStyle:
    """What all blocks of a network have in common.

    Attributes:
        norm: "batch" or "none"; without BatchNorm, convolutions have a bias in its place.
        activation: "relu", "gelu" (exact, Hendrycks and Gimpel, arXiv 1606.08415) or "none".
        dropout: probability with which a value between two convolutions becomes 0 in training.

    Raises:
        ModelError: for a value that is none of these.
    """

    norm: str = "batch"
    activation: str = "relu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, NORMS)
        check_choice("activation", self.activation, tuple(ACTIVATIONS))
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise ModelError(f"dropout is {self.dropout!r}", expected="a number from 0 to below 1")

    def normalised(self, inputs: int, outputs: int, kernel: int, stride: int, *, bias: bool) -> list[nn.Module]:
        """A convolution whose maps have the input's size ÷ ``stride``, rounded up, and its normalisation."""
        batch = self.norm == "batch"
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias and not batch)
        return [conv, nn.BatchNorm2d(outputs) if batch else nn.Identity()]

    def activated(self) -> nn.Module:
        """The activation."""
        return ACTIVATIONS[self.activation]()


class ConvBlock(nn.Module):
    """(N, inputs, h, w) → (N, outputs, ⌈h / stride⌉, ⌈w / stride⌉): 3×3 convolutions and, around them, a shortcut.

    Each convolution is followed by norm and activation. The shortcut adds the block's input before the last activation (He
    et al., arXiv 1512.03385, Figure 2); where the shapes differ, through a strided 1×1 convolution with norm (their option
    B). Dropout stands between the convolutions, off the shortcut's way, as in wide residual networks (Zagoruyko and
    Komodakis, arXiv 1605.07146, Section 2.4).

    Args:
        inputs: channels of the input.
        outputs: of each convolution.
        style: the block's switches.
        convs: how many convolutions there are.
        stride: of the first one.
        shortcut: whether there is one.
    """

    def __init__(
        self, inputs: int, outputs: int, style: BlockStyle, *, convs: int = 2, stride: int = 1, shortcut: bool = True
    ) -> None:
        super().__init__()
        layers = style.normalised(inputs, outputs, 3, stride, bias=True)
        for _ in range(convs - 1):
            layers += [
                style.activated(),
                nn.Dropout(style.dropout),
                *style.normalised(outputs, outputs, 3, 1, bias=True),
            ]
        self.convs = nn.Sequential(*layers)
        # Every stride-th pixel, then a convolution of stride 1: what a strided 1×1 convolution sees. That one's backward pass
        # writes past its memory on CPUs, in channels_last and with fewer input channels than a vector holds (oneDNN #6035).
        self.thin = nn.AvgPool2d(1, stride) if stride > 1 else nn.Identity()
        self.shortcut: nn.Module | None = None
        if shortcut and (inputs, stride) == (outputs, 1):
            self.shortcut = nn.Identity()
        elif shortcut:
            # The two sums meet: one bias is enough.
            self.shortcut = nn.Sequential(*style.normalised(inputs, outputs, 1, 1, bias=False))
        self.activation = style.activated()

    def forward(self, maps: Tensor) -> Tensor:
        """The block's map."""
        result: Tensor = self.convs(maps)
        if self.shortcut is not None:
            result = result + self.shortcut(self.thin(maps))
        activated: Tensor = self.activation(result)
        return activated
