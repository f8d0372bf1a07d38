"""The class drop: from features A to A'_drop without a tensor that has a class axis.

Paper (arXiv 2111.00531): Eq. 1 gives the importance S^c of each channel for class c, Eq. 2 the class features
ReLU(A ⊙ S^c), Eq. 3–4 their mean over the classes that are kept.

The collapse used here is exact. For numbers a and s, ReLU(a·s) = a⁺s⁺ + a⁻s⁻ with a⁺ = max(a, 0), a⁻ = min(a, 0); summed
over the kept classes, Σ_c ReLU(A ⊙ S^c) = A⁺ ⊙ Σ_c S^c⁺ + A⁻ ⊙ Σ_c S^c⁻. Two numbers a channel replace C feature maps, so
cost and memory do not depend on C. The authors' code keeps the first term only, which is the same when A ≥ 0.

Deviation from Eq. 1: S^c is the gradient of the *sum* of class c's logits, without the constant 1/(h·w), which the
convolution and BatchNorm after the drop absorb. For a linear 1×1 classifier that is its weight, exactly.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Literal, SupportsIndex

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models.modes import evaluating
from dropclass_deploy.training.dropclass import gate_operator as _operators  # noqa: F401  (registers torch.ops.dropclass)
from dropclass_deploy.training.dropclass.plain_gate import accumulation_dtype

Divisor = Literal["kept", "all"]


def class_id(dropped: SupportsIndex | None, num_classes: int) -> int | None:
    """z as a plain integer, from any integer type (NumPy's too), or None.

    Raises:
        ModelError: for anything else (a bool is no class id), or an id outside 0 … C − 1.
    """
    if dropped is None:
        return None
    index = _index(dropped)
    if not 0 <= index < num_classes:
        raise ModelError(f"the dropped class is {dropped!r}", expected=f"an integer 0 … {num_classes - 1}, or None")
    return index


def _index(value: SupportsIndex) -> int:
    """A value of an integer type as a plain integer; −1 for anything else."""
    if type(value) is int:
        return value  # as it is: ``operator.index`` would tie a compiled graph to this one number
    # Python's bool and a bool tensor have an index as well, NumPy's bool has none.
    if isinstance(value, bool) or getattr(value, "dtype", None) is torch.bool:
        return -1
    try:
        return operator.index(value)
    except TypeError:
        return -1


def drop_features(features: Tensor, weight: Tensor, dropped: SupportsIndex | None, divisor: Divisor = "kept") -> Tensor:
    """A'_drop: the mean over the kept classes of ReLU(A ⊙ S^c), for a linear classifier.

    Args:
        features: A, (N, K, h, w), of any sign.
        weight: the classifier's weight (C, K, kh, kw). S^c is the sum over the kernel's taps: exact for 1×1 and inside
            the map; at a zero-padded border some taps fall off, and S is the inner one there too.
        dropped: z, the class to leave out, or None to keep all.
        divisor: "kept" divides by the number of kept classes (authors' code), "all" by C (paper's |C|). Default "kept":
            the scale of A'_drop then does not jump between steps that drop and steps that do not.

    Returns:
        (N, K, h, w), ≥ 0, in the features' dtype.

    Raises:
        ModelError: for shapes that do not fit, z out of range, an unknown divisor, or fewer than 2 classes.
    """
    positive, negative = channel_gates(weight, dropped, divisor)
    if features.ndim != 4 or features.shape[1] != positive.numel():
        raise ModelError(
            f"features have shape {tuple(features.shape)}",
            expected=f"(N, {positive.numel()}, h, w) for this classifier",
        )
    dtype = accumulation_dtype(features.dtype)
    result: Tensor = torch.ops.dropclass.gate(features, positive.to(dtype), negative.to(dtype))
    return result


def channel_gates(weight: Tensor, dropped: SupportsIndex | None, divisor: Divisor = "kept") -> tuple[Tensor, Tensor]:
    """The two gates a channel: mean over kept classes of W⁺ and of W⁻.

    Args:
        weight: (C, K, kh, kw).
        dropped: z or None.
        divisor: see ``drop_features``.

    Returns:
        (K,) ≥ 0 and (K,) ≤ 0, in the weight's dtype (float32 at least).
    """
    if weight.ndim != 4 or weight.shape[0] < 2:
        raise ModelError(f"the classifier's weight has shape {tuple(weight.shape)}", expected="(C ≥ 2, K, kh, kw)")
    dropped = class_id(dropped, weight.shape[0])
    count = _divisor(weight.shape[0], dropped, divisor)
    importance = weight.flatten(1) if weight.shape[2:].numel() == 1 else weight.sum(dim=(2, 3))  # (C, K)
    if importance.dtype in (torch.float16, torch.bfloat16):
        importance = importance.float()
    gates: tuple[Tensor, Tensor] = torch.ops.dropclass.class_gates(
        importance, -1 if dropped is None else dropped, count
    )
    return gates


def _divisor(num_classes: int, dropped: int | None, divisor: str) -> int:
    if divisor not in ("kept", "all"):
        raise ModelError(f"divisor is {divisor!r}", expected='"kept" or "all"')
    return num_classes - 1 if dropped is not None and divisor == "kept" else num_classes


def drop_features_through(
    head: nn.Module,
    features: Tensor,
    dropped: SupportsIndex | None,
    divisor: Divisor = "kept",
    *,
    classes_at_once: int = 4,
) -> Tensor:
    """A'_drop for a head that is not one linear convolution.

    S^c is the gradient of the sum of class c's logits with respect to A, one vector-Jacobian product a class,
    ``classes_at_once`` of them in a batch (``torch.func``); a head that crops, strides or mixes pixels is fine, one that
    mixes the images of a batch is not. The head runs in eval mode and without autocast for this, and S carries no
    gradient; so the sum over classes collapses as in ``drop_features``, with gates a pixel instead of a channel.

    Args:
        head: maps A (N, K, h, w) to logits (N, C, h', w').
        features: A, (N, K, h, w).
        dropped: z or None.
        divisor: see ``drop_features``.
        classes_at_once: gradients held at a time, in units of A; the result does not depend on it.

    Returns:
        (N, K, h, w), ≥ 0.
    """
    with evaluating(head), torch.autocast(features.device.type, enabled=False):
        sums, pull = _vjp(head, features)
        num_classes = sums.numel()
        dropped = class_id(dropped, num_classes)
        count = _divisor(num_classes, dropped, divisor)
        kept = [index for index in range(num_classes) if index != dropped]
        directions = torch.eye(num_classes, dtype=sums.dtype, device=sums.device)[kept]
        positive = negative = torch.zeros_like(features)
        for chunk in torch.split(directions, max(1, classes_at_once)):
            importance = torch.vmap(pull)(chunk)[0].detach().to(features.dtype)  # (chunk, N, K, h, w)
            positive = positive + F.relu(importance).sum(0)
            negative = negative - F.relu(-importance).sum(0)
    return (F.relu(features) * positive - F.relu(-features) * negative) / count


def _vjp(head: nn.Module, features: Tensor) -> tuple[Tensor, Callable[..., tuple[Tensor]]]:
    """The sum of each class's logits (C,), and the function from a direction (C,) to its gradient (N, K, h, w)."""
    # A head may work in place; the features belong to the caller. Under autocast they can be of another dtype than it is.
    reference = next(head.parameters(), features)
    copy = features.detach().to(reference.dtype)
    result = torch.func.vjp(lambda a: head(a.clone()).sum(dim=(0, 2, 3)), copy)
    return result[0], result[1]
