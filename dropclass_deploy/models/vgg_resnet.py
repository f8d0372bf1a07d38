"""VGG-ResNet(a, b): a plain convolutional backbone with the switches that lead from VGG to ResNet.

Stages of 3×3 convolutions, the channels doubled wherever the map is halved, by max pooling and without shortcuts as in VGG
(Simonyan and Zisserman, arXiv 1409.1556), or by strided convolutions and with shortcuts as in ResNet (He et al., arXiv
1512.03385). Ours, and neither paper's: the first stage keeps the image's size, so that images of 28×28 go through four
stages; a shortcut spans its whole stage, whatever number of convolutions that has (2 make ResNet's basic block); pooling
rounds odd sizes up; every switch. Pooling and striding have the same parameters under the same names.

One backbone for both tasks: under a decoder it segments, under global average pooling and a linear layer it classifies, and
a checkpoint of either gives its backbone to the other.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from dropclass_deploy.models.blocks import BlockStyle, ConvBlock
from dropclass_deploy.models.fitting import Target, load_fitting
from dropclass_deploy.models.lite import LiteDecoder
from dropclass_deploy.models.network import SegmentationNetwork, check_choice, check_option, check_switch
from dropclass_deploy.models.unet import Expanding
from dropclass_deploy.models.weights import Weights

DOWN = ("maxpool", "stride")
DECODERS = {"lite": LiteDecoder, "unet": Expanding}
MOST_CLASSES = 65_536  # of images; masks have their own bound


class VGGResNet(nn.Module):
    """Images (N, 3, H, W) → one map a stage, finest first: strides 1, 2, 4, …, sizes rounded up.

    Args:
        stages: a, 1–6.
        convs: b, 1–8, 3×3 convolutions a stage.
        down: how each stage but the first halves its input: "maxpool" before it, or "stride" of its first convolution.
        skips: whether a stage adds its input to its output.
        norm: "batch" or "none".
        activation: "relu", "gelu" or "none".
        width: channels of the first stage, doubled at each next one, 4–256.

    Attributes:
        channels: of the maps.

    Raises:
        ModelError: for an option out of range.
    """

    def __init__(
        self,
        *,
        stages: int = 4,
        convs: int = 2,
        down: str = "maxpool",
        skips: bool = True,
        norm: str = "batch",
        activation: str = "relu",
        width: int = 32,
    ) -> None:
        super().__init__()
        check_option("stages", stages, range(1, 7), "stages")
        check_option("convs", convs, range(1, 9), "convolutions a stage")
        check_option("width", width, range(4, 257), "channels of the first stage")
        check_choice("down", down, DOWN)
        check_switch("skips", skips)
        style = BlockStyle(norm, activation)
        pooled = down == "maxpool"
        self.channels = [width * 2**stage for stage in range(stages)]
        self.stages = nn.ModuleList(
            ConvBlock(inputs, outputs, style, convs=convs, stride=1 if pooled or not stage else 2, shortcut=skips)
            for stage, (inputs, outputs) in enumerate(zip([3, *self.channels], self.channels, strict=False))
        )
        self.pool = nn.MaxPool2d(2, ceil_mode=True) if pooled else nn.Identity()

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps."""
        maps = [self.stages[0](images)]
        for stage in self.stages[1:]:
            maps.append(stage(self.pool(maps[-1])))
        return maps


class ImageClassifier(nn.Module):
    """Images (N, 3, H, W) → logits (N, C): the backbone's last map, its average over the pixels, a linear layer."""

    def __init__(self, encoder: VGGResNet, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        # No "classifier", as a segmentation network calls its convolution: by their names the two checkpoints are told apart.
        self.head = nn.Linear(encoder.channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C)."""
        return cast(Tensor, self.head(self.encoder(images)[-1].mean((2, 3))))


def vgg_resnet(
    num_classes: int,
    weights: str | None = None,
    *,
    stages: int = 4,
    convs: int = 2,
    down: str = "maxpool",
    skips: bool = True,
    norm: str = "batch",
    activation: str = "relu",
    width: int = 32,
    decoder: str = "lite",
) -> nn.Module:
    """Build VGG-ResNet(a, b) with a decoder, which has BatchNorm and ReLU whatever the backbone has.

    Args:
        num_classes: C.
        weights: None, or a local file with the state dict of the whole network, of its backbone (``VGGResNet``), or of an
            ``ImageClassifier`` on it.
        stages: a; this and what follows as for ``VGGResNet``.
        convs: b.
        down: "maxpool" or "stride".
        skips: whether there are shortcuts.
        norm: "batch" or "none".
        activation: "relu", "gelu" or "none".
        width: channels of the first stage, and of the decoder.
        decoder: "lite", as ``timm:NAME`` has it, or "unet".

    Raises:
        ModelError: for weights that cannot be found or do not fit, or an option out of range.
    """
    check_choice("decoder", decoder, tuple(DECODERS))
    encoder = VGGResNet(
        stages=stages, convs=convs, down=down, skips=skips, norm=norm, activation=activation, width=width
    )
    top = DECODERS[decoder](encoder.channels, width)
    network = SegmentationNetwork(encoder, top, width, num_classes, full_size=True)
    _load(network, encoder, weights, num_classes)
    return network


def vgg_resnet_classifier(
    num_classes: int,
    weights: str | None = None,
    *,
    stages: int = 4,
    convs: int = 2,
    down: str = "maxpool",
    skips: bool = True,
    norm: str = "batch",
    activation: str = "relu",
    width: int = 32,
) -> nn.Module:
    """Build VGG-ResNet(a, b) as a classifier of images (N, 3, H, W) of any size → logits (N, C).

    Args:
        num_classes: C, from 2.
        weights: None, or a local file with the state dict of the whole network, of its backbone, or of a segmentation
            network on it.
        stages: a; this and what follows as for ``VGGResNet``.
        convs: b.
        down: "maxpool" or "stride".
        skips: whether there are shortcuts.
        norm: "batch" or "none".
        activation: "relu", "gelu" or "none".
        width: channels of the first stage.

    Raises:
        ModelError: for weights that cannot be found or do not fit, or an option out of range.
    """
    check_option("num_classes", num_classes, range(2, MOST_CLASSES + 1), "classes")
    encoder = VGGResNet(
        stages=stages, convs=convs, down=down, skips=skips, norm=norm, activation=activation, width=width
    )
    network = ImageClassifier(encoder, num_classes)
    _load(network, encoder, weights, num_classes)
    return network


def _load(network: nn.Module, encoder: VGGResNet, weights: str | None, num_classes: int) -> None:
    if weights is not None:
        targets = [Target(network), Target(encoder, prefixes=("encoder.",))]
        load_fitting(targets, Weights().read(weights), weights, num_classes)
