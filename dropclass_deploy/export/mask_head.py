"""The dense mask head as a torch module: what ``models/model.mask.onnx`` computes, written a second time.

The ONNX file gets its head as graph nodes (``graphs.with_mask_head``); this module is what the export gate holds it
against.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.export.networks import ResizedLogits


class MaskModel(nn.Module):
    """uint8 images (N, H, W, 3) RGB → uint8 mask (N, H, W) of class ids.

    Normalisation is inside (``pixel * scale + shift``, per channel); the class with the largest logit wins and equal
    logits go to the lowest id. ``preprocess.size`` is not applied: the images come at the size the network shall see.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.network = model if isinstance(model, ResizedLogits) else ResizedLogits(model)
        scale, shift = preprocess.scale_and_shift()
        self.register_buffer("scale", torch.from_numpy(scale).reshape(1, 3, 1, 1))
        self.register_buffer("shift", torch.from_numpy(shift).reshape(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Mask (N, H, W) uint8 of images (N, H, W, 3) uint8."""
        planes = images.permute(0, 3, 1, 2).float()  # (N, 3, H, W)
        logits: Tensor = self.network(planes * self.scale + self.shift)  # (N, C, H, W)
        # torch.argmax gives the first of equal maxima: the lowest id.
        return logits.argmax(dim=1).to(torch.uint8)
