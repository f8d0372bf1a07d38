"""Segmentation losses that never give NaN."""

from dropclass_deploy.training.losses.cross_entropy import check_labels, cross_entropy, label_weight, resize_logits

__all__ = ["check_labels", "cross_entropy", "label_weight", "resize_logits"]
