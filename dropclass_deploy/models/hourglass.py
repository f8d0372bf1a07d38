"""Hourglass(n, c): a small encoder and decoder whose parts can be switched off one by one.

After the hourglass module of Newell et al., *Stacked Hourglass Networks*, arXiv 1603.06937: residual blocks, max pooling
down, and on the way up the resized map **plus** the encoder's map of the same size. That sum has no parameters: with and
without skips between the blocks the network has the same size. Ours, and not theirs: one hourglass, not a stack; n and c as
options; channels that double at each level instead of staying 256; two 3×3 convolutions a block; no residual block on the
skips; bilinear resizing to the skip's size, so that images of any size go through; dropout; every switch.
"""

from __future__ import annotations

from torch import Tensor, nn

from dropclass_deploy.models.blocks import BlockStyle, ConvBlock
from dropclass_deploy.models.fitting import Target, load_fitting
from dropclass_deploy.models.network import SegmentationNetwork, check_option, check_switch, resized
from dropclass_deploy.models.weights import Weights


class Narrowing(nn.Module):
    """Images → one map a block, each before its halving, then the map of the waist: strides 1, 2, …, 2ⁿ.

    Args:
        channels: of the blocks, finest first; the waist has those of the last.
        style: of the blocks.
        shortcuts: whether the blocks have shortcuts.
    """

    def __init__(self, channels: list[int], style: BlockStyle, *, shortcuts: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ConvBlock(inputs, outputs, style, shortcut=shortcuts)
            for inputs, outputs in zip([3, *channels], channels, strict=False)
        )
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.waist = ConvBlock(channels[-1], channels[-1], style, shortcut=shortcuts)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps, finest first."""
        maps: list[Tensor] = []
        for block in self.blocks:
            maps.append(block(images))
            images = self.pool(maps[-1])
        return [*maps, self.waist(images)]


class Widening(nn.Module):
    """Maps of ``Narrowing`` → one map (N, channels[0], H, W) of the finest one's size.

    Args:
        channels: as ``Narrowing`` has them.
        style: of the blocks.
        shortcuts: whether the blocks have shortcuts.
        skips: whether the encoder's maps are added; if not, they only say the sizes.
    """

    def __init__(self, channels: list[int], style: BlockStyle, *, shortcuts: bool, skips: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ConvBlock(inputs, outputs, style, shortcut=shortcuts)
            for inputs, outputs in zip(channels, [channels[0], *channels[:-1]], strict=True)
        )
        self.skips = skips

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Double, add, convolve, once a block."""
        result = maps[-1]
        for block, skip in zip(reversed(self.blocks), reversed(maps[:-1]), strict=True):
            result = resized(result, skip)
            result = block(result + skip if self.skips else result)
        return result


def hourglass(
    num_classes: int,
    weights: str | None = None,
    *,
    blocks: int = 4,
    channels: int = 16,
    intra_skips: bool = True,
    inter_skips: bool = True,
    dropout: float = 0.2,
    norm: str = "batch",
    activation: str = "relu",
) -> nn.Module:
    """Build Hourglass(n, c).

    Args:
        num_classes: C.
        weights: None, or a local file with the state dict of the whole network.
        blocks: n, 1–6: of the encoder, each of which halves the map, and of the decoder, each of which doubles it. Between
            them, at the smallest size, stands one block more.
        channels: c, 4–256: of the first block, doubled at each next one.
        intra_skips: whether a block adds its input to its output.
        inter_skips: whether the encoder's maps are added to those of the decoder of the same size.
        dropout: probability, from 0 to below 1, between the two convolutions of each block.
        norm: "batch" or "none".
        activation: "relu", "gelu" or "none". With the last two the classifier's features may be negative.

    Raises:
        ModelError: for weights that cannot be found or do not fit, or an option out of range.
    """
    check_option("blocks", blocks, range(1, 7), "blocks")
    check_option("channels", channels, range(4, 257), "channels of the first block")
    check_switch("intra_skips", intra_skips)
    check_switch("inter_skips", inter_skips)
    style = BlockStyle(norm, activation, dropout)
    widths = [channels * 2**level for level in range(blocks)]
    network = SegmentationNetwork(
        Narrowing(widths, style, shortcuts=intra_skips),
        Widening(widths, style, shortcuts=intra_skips, skips=inter_skips),
        channels,
        num_classes,
        full_size=True,
    )
    if weights is not None:
        load_fitting([Target(network)], Weights().read(weights), weights, num_classes)
    return network
