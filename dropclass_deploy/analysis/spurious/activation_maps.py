"""Class activation maps: where a class gets its logit from (Zhou et al., arXiv 1512.04150, Eq. 2)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.analysis.spurious.classifier import feature_maps, last_layer
from dropclass_deploy.analysis.spurious.composites import Composites, cell_box
from dropclass_deploy.analysis.spurious.fitting import tensor_of
from dropclass_deploy.core.metrics import ratio
from dropclass_deploy.models.modes import evaluating

Maps = npt.NDArray[np.float32]


@torch.inference_mode()
def class_activation_maps(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """M_c = Σ_k w_ck A_k for one class an image; its mean over the places, plus the bias, is the class's logit.

    Args:
        model: with ``features`` and a linear ``classifier`` on their means.
        images: (N, 3, H, W).
        classes: (N,) ids.

    Returns:
        (N, h, w) at the features' resolution.
    """
    with evaluating(model):
        maps = feature_maps(model, images)
        return torch.einsum("nkhw,nk->nhw", maps, last_layer(model).weight[classes])


def maps_of_labels(model: nn.Module, composites: Composites) -> Maps:
    """(n, H, W): the map of each composite's own class, bilinear at the composites' size."""
    images = tensor_of(composites.images)
    maps = class_activation_maps(model, images, torch.from_numpy(composites.labels))
    resized = F.interpolate(maps[:, None], size=images.shape[2:], mode="bilinear", align_corners=False)
    values: Maps = resized[:, 0].numpy()
    return values


def share_in_cells(maps: Maps, cells: npt.NDArray[np.int64], grid: int) -> npt.NDArray[np.float64]:
    """(n,) the share of a map's positive values that lies in one cell; NaN for a map without any.

    What speaks against a class is left out: it may lie anywhere. An even map gives 1 / grid².

    Args:
        maps: (n, H, W).
        cells: (n,).
        grid: cells on each side.
    """
    positive = np.maximum(maps, 0).astype(np.float64)
    boxes = [cell_box(int(cell), grid, positive.shape[1:]) for cell in cells]
    inside = np.array([one[box].sum() for one, box in zip(positive, boxes, strict=True)])
    return ratio(inside, positive.sum(axis=(1, 2)))
