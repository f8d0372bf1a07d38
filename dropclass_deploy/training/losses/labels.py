"""What the labels of a batch say before any logit is looked at: that they are labels, and what the means divide by."""

from __future__ import annotations

import torch
from torch import Tensor

from dropclass_deploy.core.errors import DataError


def check_labels(labels: Tensor, num_classes: int, ignore_index: int) -> None:
    """Refuse labels that are not (N, H, W) integer ids in [0, C) or ``ignore_index``.

    Values are looked at on the CPU only: on a GPU the look would stall every step, and the reader checked them before.

    Raises:
        DataError: with what was found.
    """
    if labels.ndim != 3 or labels.is_floating_point() or labels.is_complex():
        raise DataError(
            f"labels have shape {tuple(labels.shape)} and dtype {labels.dtype}", expected="integer (N, H, W)"
        )
    if labels.device.type != "cpu" or _all_classes(labels, num_classes, ignore_index):
        return
    labels = labels.long()  # small unsigned types do not compare with every id, nor uint16 at all
    wrong = labels[(labels != ignore_index) & ((labels < 0) | (labels >= num_classes))]
    if wrong.numel():
        raise DataError(
            f"{wrong.numel()} label pixels hold ids such as {int(wrong[0])}",
            expected=f"0 … {num_classes - 1}, or {ignore_index} for pixels to ignore",
        )


def label_weights(labels: Tensor, tables: Tensor, ignore_index: int, pixel_weight: Tensor | None = None) -> Tensor:
    """What weighted means over pixels divide by: Σ table[label] over the pixels that are not ignored, for each table.

    Args:
        labels: (N, H, W) integer ids in [0, C) or ``ignore_index``.
        tables: (T, C) weights of the classes.
        ignore_index: label that counts nowhere.
        pixel_weight: (N, H, W) further factor, or None.

    Returns:
        (T,) float64: counts of pixels stay exact.
    """
    if labels.device.type == "cpu" and pixel_weight is None:
        return tables.double() @ _class_counts(labels, tables.shape[1], ignore_index).double()
    wide = _wide(labels)
    # An id out of range counts nowhere, as in the losses' kernels; on the CPU ``check_labels`` has refused it.
    valid = (wide != ignore_index) & (wide >= 0) & (wide < tables.shape[1])
    ids = torch.where(valid, wide, 0).long()
    # A table at a time: on a GPU a histogram would wait for its result, and gathering all at once holds T·N·H·W numbers.
    factor = valid if pixel_weight is None else valid * pixel_weight
    return torch.stack([(table[ids] * factor).sum(dtype=torch.float64) for table in tables.to(labels.device)])


def without_label(labels: Tensor, dropped: int | None, ignore_index: int) -> Tensor:
    """The labels with those of the dropped class ignored; as they are when nothing was dropped."""
    return labels if dropped is None else relabelled(labels, dropped, ignore_index)


def relabelled(labels: Tensor, old: int, new: int) -> Tensor:
    """The labels with one id changed into another; int64 where the new one has no place in their type."""
    limits = torch.iinfo(labels.dtype)
    wide = labels if limits.min <= new <= limits.max else labels.long()
    return wide.masked_fill(labels == old, new)


def counted_pixels(labels: Tensor, ignore_index: int) -> Tensor:
    """The number of pixels that are not ignored, a float64 scalar."""
    return (_wide(labels) != ignore_index).sum().double()


def _wide(labels: Tensor) -> Tensor:
    """Labels of a type that compares with every id."""
    return labels if labels.dtype == torch.int64 else labels.to(torch.int32)


def _all_classes(labels: Tensor, num_classes: int, ignore_index: int) -> bool:
    """Whether a quick look shows every label in order: most batches need no more."""
    if labels.dtype != torch.uint8:
        return False
    present = torch.bincount(labels.flatten(), minlength=256)
    if 0 <= ignore_index < 256:
        present[ignore_index] = 0
    return not bool(present[num_classes:].any())


def _class_counts(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Pixels of each class, int64 (C,); an ignored class has none."""
    if labels.dtype == torch.uint8:
        counts = torch.bincount(labels.flatten(), minlength=max(256, num_classes))
    else:
        labels = labels.long()
        counts = torch.bincount(labels[(labels != ignore_index) & (labels >= 0)], minlength=num_classes)
    counts = counts[:num_classes]
    if 0 <= ignore_index < num_classes:
        counts[ignore_index] = 0
    return counts
