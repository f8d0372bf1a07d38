"""The gate as operators of torch: ``torch.ops.dropclass.gate`` and ``torch.ops.dropclass.class_gates``.

To torch.compile, autocast, DistributedDataParallel and export they are one node each, with shapes known without running
(fake kernels) and a gradient that is one operator too. On a GPU the Triton kernels of ``triton_gate`` run, elsewhere, in
float64, and where Triton cannot work the plain torch of ``plain_gate``: the same formulas.

Saved for the backward pass: A itself, which the classifier keeps anyway, and numbers a channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.training.dropclass import plain_gate
from dropclass_deploy.training.losses.triton_check import working

# float64 is for checks, not for speed: the kernels accumulate in float32.
_KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@torch.library.custom_op("dropclass::class_gates", mutates_args=())
def class_gates(importance: Tensor, dropped: int, count: int) -> tuple[Tensor, Tensor]:
    """Σ over the kept classes of S⁺ and of S⁻, divided by ``count``: (K,) ≥ 0 and (K,) ≤ 0.

    Args:
        importance: S (C, K), float32 or float64.
        dropped: z, or −1 for none. A number, never a shape: one compiled graph serves every class.
        count: divisor.
    """
    return plain_gate.class_gates(importance, dropped, count)


@torch.library.custom_op("dropclass::class_gates_backward", mutates_args=())
def class_gates_backward(
    grad_positive: Tensor, grad_negative: Tensor, importance: Tensor, dropped: int, count: int
) -> Tensor:
    """The gradient (C, K) with respect to S."""
    return plain_gate.class_gates_backward(grad_positive, grad_negative, importance, dropped, count)


@torch.library.custom_op("dropclass::gate", mutates_args=())
def gate(features: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """A'_drop = A⁺·positive + A⁻·negative, channel by channel: one read of A, one write.

    Args:
        features: A (N, K, h, w), any floating dtype; contiguous or channels_last is worked on as it lies.
        positive: (K,) ≥ 0, float32 (float64 for float64 features).
        negative: (K,) ≤ 0, the same.

    Returns:
        (N, K, h, w) in the features' dtype and layout. Products are made in the gates' dtype and rounded once.

    Raises:
        ModelError: for shapes or dtypes that do not fit.
    """
    _check(features, positive, negative)
    return plain_gate.gate(plain_gate.dense(features), positive, negative)


@torch.library.custom_op("dropclass::gate_backward", mutates_args=())
def gate_backward(
    grad: Tensor,
    features: Tensor,
    positive: Tensor,
    negative: Tensor,
    features_too: bool = True,
    gates_too: bool = True,
) -> tuple[Tensor, Tensor]:
    """Gradients of ``gate`` in one pass over g and A.

    Args:
        grad: g (N, K, h, w).
        features: A.
        positive: (K,).
        negative: (K,).
        features_too: whether the first result is wanted.
        gates_too: whether the second is: without it no sum is made.

    Returns:
        The gradient with respect to A (N, K, h, w): g·positive where A > 0, g·negative where A < 0, 0 at A = 0; and those
        with respect to the two gates, Σ g·A⁺ and Σ g·A⁻ over images and pixels, as rows of one (2, K) tensor, so that one
        reduction makes both. What is not wanted has no elements.
    """
    features = plain_gate.dense(features)
    grad = plain_gate.laid_out_as(features, grad)
    return plain_gate.gate_backward(grad, features, positive, negative, features_too=features_too, gates_too=gates_too)


def _check(features: Tensor, positive: Tensor, negative: Tensor) -> None:
    expected = plain_gate.accumulation_dtype(features.dtype)
    if features.ndim != 4 or not features.is_floating_point():
        raise ModelError(
            f"the gate's features are {features.dtype} {tuple(features.shape)}", expected="(N, K, h, w) float"
        )
    for values in (positive, negative):
        if values.shape != (features.shape[1],) or values.dtype != expected:
            raise ModelError(
                f"a gate is {values.dtype} {tuple(values.shape)}", expected=f"{expected} ({features.shape[1]},)"
            )


# ---- Shapes without values: what torch.compile and export run.


@class_gates.register_fake
def _(importance: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return importance.new_empty(importance.shape[1]), importance.new_empty(importance.shape[1])


@class_gates_backward.register_fake
def _(_positive: Tensor, _negative: Tensor, importance: Tensor, *_: object) -> Tensor:
    return importance.new_empty(importance.shape)


@gate.register_fake
def _(features: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    _check(features, positive, negative)
    return torch.empty_like(plain_gate.dense(features))


@gate_backward.register_fake
def _(
    _grad: Tensor,
    features: Tensor,
    positive: Tensor,
    _negative: Tensor,
    features_too: bool = True,
    gates_too: bool = True,
) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(plain_gate.dense(features)) if features_too else features.new_empty(0),
        positive.new_empty(2, features.shape[1]) if gates_too else positive.new_empty(0),
    )


# ---- Gradients.


def _remember_importance(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:  # noqa: ARG001 (torch names it)
    importance, ctx.dropped, ctx.count = inputs
    ctx.save_for_backward(importance)


def _through_class_gates(ctx: Any, grad_positive: Tensor, grad_negative: Tensor) -> tuple[Tensor, None, None]:
    (importance,) = ctx.saved_tensors
    # With create_graph the gradient itself needs one: plain operations have it.
    function = plain_gate.class_gates_backward if torch.is_grad_enabled() else torch.ops.dropclass.class_gates_backward
    return function(grad_positive, grad_negative, importance, ctx.dropped, ctx.count), None, None


def _remember_features(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:  # noqa: ARG001 (torch names it)
    ctx.save_for_backward(*inputs)


def _through_gate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    features, positive, negative = ctx.saved_tensors
    if torch.is_grad_enabled():
        return plain_gate.differentiable_gate_backward(grad, features, positive, negative)
    features_too, *gates = ctx.needs_input_grad
    grad_features, grad_gates = torch.ops.dropclass.gate_backward(
        grad, features, positive, negative, features_too, any(gates)
    )
    pair: Sequence[Tensor | None] = grad_gates.unbind() if any(gates) else (None, None)
    return grad_features if features_too else None, pair[0], pair[1]


class_gates.register_autograd(_through_class_gates, setup_context=_remember_importance)
gate.register_autograd(_through_gate, setup_context=_remember_features)


# ---- On a GPU.


@cache
def _kernels(device: torch.device) -> ModuleType | None:
    """The Triton kernels, or None where they cannot run; found out once a device by running the smallest gate."""
    try:
        from dropclass_deploy.training.dropclass import triton_gate
    except ImportError:  # torch for Windows comes without Triton
        return None
    one = torch.ones(1, device=device)
    return working(triton_gate, lambda: triton_gate.gate(one.view(1, 1, 1, 1), one, -one), device)


def _kernels_for(tensor: Tensor) -> ModuleType | None:
    return _kernels(tensor.device) if tensor.dtype in _KERNEL_DTYPES and tensor.numel() > 0 else None


@class_gates.register_kernel("cuda")
def _class_gates_on_gpu(importance: Tensor, dropped: int, count: int) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = (_kernels_for(importance) or plain_gate).class_gates(importance, dropped, count)
    return result


@class_gates_backward.register_kernel("cuda")
def _class_gates_backward_on_gpu(
    grad_positive: Tensor, grad_negative: Tensor, importance: Tensor, dropped: int, count: int
) -> Tensor:
    function = (_kernels_for(importance) or plain_gate).class_gates_backward
    result: Tensor = function(grad_positive, grad_negative, importance, dropped, count)
    return result


@gate.register_kernel("cuda")
def _gate_on_gpu(features: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    _check(features, positive, negative)
    result: Tensor = (_kernels_for(features) or plain_gate).gate(plain_gate.dense(features), positive, negative)
    return result


@gate_backward.register_kernel("cuda")
def _gate_backward_on_gpu(
    grad: Tensor,
    features: Tensor,
    positive: Tensor,
    negative: Tensor,
    features_too: bool = True,
    gates_too: bool = True,
) -> tuple[Tensor, Tensor]:
    features = plain_gate.dense(features)
    grad = plain_gate.laid_out_as(features, grad)
    function = (_kernels_for(features) or plain_gate).gate_backward
    result: tuple[Tensor, Tensor] = function(
        grad, features, positive, negative, features_too=features_too, gates_too=gates_too
    )
    return result
