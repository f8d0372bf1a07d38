"""Segmentation losses that never give NaN; those that need no whole maps never hold logits at full size."""

from dropclass_deploy.training.losses.boundary import boundary_weight
from dropclass_deploy.training.losses.cross_entropy import class_table, cross_entropy, resize_logits
from dropclass_deploy.training.losses.focal import focal_loss
from dropclass_deploy.training.losses.hard_pixels import hard_pixel_weight
from dropclass_deploy.training.losses.labels import (
    check_labels,
    counted_pixels,
    label_weights,
    relabelled,
    without_label,
)
from dropclass_deploy.training.losses.overlap import dice_loss, lovasz_softmax
from dropclass_deploy.training.losses.resized import Resize, head_losses, resize_left
from dropclass_deploy.training.losses.template import push_loss, template_loss
from dropclass_deploy.training.losses.variation import balanced_variation, logit_shift, uncertainty_loss

__all__ = [
    "Resize",
    "balanced_variation",
    "boundary_weight",
    "check_labels",
    "class_table",
    "counted_pixels",
    "cross_entropy",
    "dice_loss",
    "focal_loss",
    "hard_pixel_weight",
    "head_losses",
    "label_weights",
    "logit_shift",
    "lovasz_softmax",
    "push_loss",
    "relabelled",
    "resize_left",
    "resize_logits",
    "template_loss",
    "uncertainty_loss",
    "without_label",
]
