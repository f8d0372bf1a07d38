"""Segmentation losses that never give NaN, and never hold logits at full size."""

from dropclass_deploy.training.losses.cross_entropy import cross_entropy, resize_logits
from dropclass_deploy.training.losses.labels import check_labels, counted_pixels, label_weights
from dropclass_deploy.training.losses.resized import Resize, head_losses, resize_left

__all__ = [
    "Resize",
    "check_labels",
    "counted_pixels",
    "cross_entropy",
    "head_losses",
    "label_weights",
    "resize_left",
    "resize_logits",
]
