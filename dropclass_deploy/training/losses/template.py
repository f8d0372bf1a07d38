"""Each class's surest pixel as a template: pull the class's other pixels to it, push the templates of an image apart.

The auxiliary losses of Seg-Unravel (A. Ganeshan, "Per-pixel Feedback For Improving Semantic Segmentation", 2017; described
at bardofcodes.github.io/projects/seg-unravel): templates are picked at the pre-softmax layer, and compared with the vectors
of that layer by cosine or by correlation. Its code is not published any more; the means over pixels, classes and images, the
detached template of the pull and the hinge of the push are ours.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.training.losses.cross_entropy import reciprocal
from dropclass_deploy.training.losses.full_size import check_full_size, counted_ids, truth_log_probability, widened

Similarity = Literal["cosine", "correlation"]

_FAINT = 1e-6
"""Norm below which a vector has no direction: its similarity to anything is 0, and so is the gradient."""


def template_loss(
    logits: Tensor, labels: Tensor, *, similarity: Similarity = "cosine", ignore_index: int = 255
) -> Tensor:
    """Pull: the mean of 1 − similarity(a pixel's logits, the template of its class in its image).

    The template of a class in an image is the logit vector of that one of its pixels which has the highest softmax
    probability of the class, without gradient. The mean is over a class's pixels, then an image's classes, then the images
    that have a labelled pixel.

    Args:
        logits: (N, C, H, W), at the labels' size.
        labels: (N, H, W) ids.
        similarity: "cosine", or "correlation": the cosine after each vector's own mean is subtracted.
        ignore_index: label that counts nowhere.

    Returns:
        A scalar in [0, 2], float32 (float64 for float64 logits); 0 with zero gradients when nothing counts.

    Raises:
        DataError: when logits and labels do not belong together.
        UserError: for an unknown similarity.
    """
    vectors, ids, counted = _vectors(logits, labels, similarity, ignore_index)
    index, sizes = _surest_pixels(logits, ids, counted)
    templates = _unit(_at(vectors.detach(), index))
    own = _at(templates, ids.flatten(1))
    alike = (vectors * own).sum(1) * _inverse_norm(vectors)
    classes = (sizes > 0).sum(1, keepdim=True)
    share = reciprocal((sizes * classes * (classes > 0).sum()).double()).to(vectors.dtype)
    return ((1.0 - alike) * share.gather(1, ids.flatten(1)) * counted.flatten(1)).sum()


def push_loss(logits: Tensor, labels: Tensor, *, similarity: Similarity = "cosine", ignore_index: int = 255) -> Tensor:
    """Push: the mean of max(0, similarity(a, b)) over the pairs of templates of different classes of an image.

    Templates as for ``template_loss``, but the gradient flows through them. The mean is over an image's pairs, then the
    images that have two classes at least; the others count nowhere.

    Args:
        logits: (N, C, H, W), at the labels' size.
        labels: (N, H, W) ids.
        similarity: "cosine" or "correlation".
        ignore_index: label that counts nowhere.

    Returns:
        A scalar in [0, 1], float32 (float64 for float64 logits); 0 with zero gradients when nothing counts.

    Raises:
        DataError: when logits and labels do not belong together.
        UserError: for an unknown similarity.
    """
    vectors, ids, counted = _vectors(logits, labels, similarity, ignore_index)
    index, sizes = _surest_pixels(logits, ids, counted)
    templates = _unit(_at(vectors, index))
    with torch.autocast(logits.device.type, enabled=False):
        alike = templates.transpose(1, 2) @ templates
    present = sizes > 0
    pairs = (present[:, :, None] & present[:, None, :]).triu(1)
    count = pairs.sum((1, 2))
    share = reciprocal((count * (count > 0).sum()).double()).to(vectors.dtype)
    return (torch.where(pairs, alike.relu(), 0.0).sum((1, 2)) * share).sum()


def _vectors(
    logits: Tensor, labels: Tensor, similarity: Similarity, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What is compared, (N, C, H·W), whose cosine is the similarity; class ids and where they count, (N, H, W)."""
    check_full_size(logits, labels)
    if similarity not in ("cosine", "correlation"):
        raise UserError(f"similarity is {similarity!r}", expected='"cosine" or "correlation"')
    vectors = widened(logits).flatten(2)
    if similarity == "correlation":
        vectors = vectors - vectors.mean(1, keepdim=True)
    return vectors, *counted_ids(labels, logits.shape[1], ignore_index)


@torch.no_grad()
def _surest_pixels(logits: Tensor, ids: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """The pixel of each image's classes that is surest of its class, and how many pixels each has: int64 (N, C) both.

    For a class that an image lacks: any pixel, and 0.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)[:, None]
    index, sizes = [ids.new_empty(0, len(classes))], [ids.new_empty(0, len(classes))]
    for image, own, here in zip(logits, ids, counted, strict=True):  # C·H·W numbers at a time
        sure = truth_log_probability(widened(image[None]), own[None]).flatten()
        member = (own.flatten() == classes) & here.flatten()
        index.append(torch.where(member, sure, -math.inf).argmax(1)[None])
        sizes.append(member.sum(1)[None])
    return torch.cat(index), torch.cat(sizes)


def _at(vectors: Tensor, index: Tensor) -> Tensor:
    """Vectors (N, C, K) of the places ``index`` (N, M): (N, C, M)."""
    return vectors.gather(2, index[:, None].expand(-1, vectors.shape[1], -1))


def _unit(vectors: Tensor) -> Tensor:
    """Vectors (N, C, K) of length 1, or 0 where they have no direction."""
    return vectors * _inverse_norm(vectors)[:, None]


def _inverse_norm(vectors: Tensor) -> Tensor:
    """1 ÷ the norms of vectors (N, C, K), (N, K); 0, without gradient, where they have no direction."""
    square = vectors.square().sum(1)
    faint = square <= _FAINT**2
    return torch.where(faint, 0.0, square.masked_fill(faint, 1.0).rsqrt())
