"""DeepLabV3 with MobileNetV3-Large: torchvision's network, returning its logits as a tensor.

Source: Chen et al., arXiv 1706.05587; Howard et al., arXiv 1905.02244; built by torchvision.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from torchvision.models import MobileNet_V3_Large_Weights
from torchvision.models.segmentation import DeepLabV3_MobileNet_V3_Large_Weights
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large as build

from dropclass_deploy.models.fitting import Target, load_fitting
from dropclass_deploy.models.outputs import logits_of
from dropclass_deploy.models.weights import StateDict, Weights

# __members__ holds DEFAULT too, which is torchvision's name for the newest.
_NETWORK: dict[str, Any] = dict(DeepLabV3_MobileNet_V3_Large_Weights.__members__)
_BACKBONE: dict[str, Any] = dict(MobileNet_V3_Large_Weights.__members__)
_NAMES: dict[str, Any] = {
    **_NETWORK,
    **{f"DeepLabV3_MobileNet_V3_Large_Weights.{name}": weight for name, weight in _NETWORK.items()},
    **{name: weight for name, weight in _BACKBONE.items() if name not in _NETWORK},
    **{f"MobileNet_V3_Large_Weights.{name}": weight for name, weight in _BACKBONE.items()},
    **{f"backbone:{name}": weight for name, weight in _BACKBONE.items()},
    "imagenet": MobileNet_V3_Large_Weights.DEFAULT,
}
"""Weight name → torchvision's entry; a name that both networks have means the whole one."""


class TensorLogits(nn.Module):
    """A torchvision segmentation network that returns only its logits (N, C, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) of images (N, 3, H, W)."""
        return logits_of(self.network(images))


def deeplabv3_mobilenet_v3_large(num_classes: int, weights: str | None = None) -> nn.Module:
    """Build DeepLabV3-MobileNetV3-Large without the auxiliary head.

    Args:
        num_classes: C.
        weights: None; torchvision's name of the whole network's weights (``"DEFAULT"``, ``"COCO_WITH_VOC_LABELS_V1"``) or
            of the backbone's (``"IMAGENET1K_V1"``, ``"IMAGENET1K_V2"``), with or without the class before it
            (``"MobileNet_V3_Large_Weights.DEFAULT"``); ``"backbone:NAME"``; ``"imagenet"`` (the backbone's default); or a
            local file with the state dict of either. The classifier's last convolution keeps its random start when the
            weights have another number of classes.

    Raises:
        ModelError: for weights that cannot be found or do not fit.
    """
    network = build(weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=False)
    if weights is not None:
        targets = [
            Target(network, ignored=frozenset({"aux_classifier."})),
            Target(network.backbone, ignored=frozenset({"classifier."}), prefixes=("features.", "backbone.")),
        ]
        load_fitting(targets, Weights(named=_downloads()).read(weights), weights, num_classes)
    return TensorLogits(network)


def _downloads() -> dict[str, Callable[[], StateDict]]:
    return {name: partial(_download, weight) for name, weight in _NAMES.items()}


def _download(weight: Any) -> StateDict:
    return cast(StateDict, weight.get_state_dict(progress=False))
