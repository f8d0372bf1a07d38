"""Which rule is an operator's."""

from __future__ import annotations

from collections.abc import Callable

from dropclass_deploy.analysis.unravel.points import Points
from dropclass_deploy.analysis.unravel.rules.averaged import adaptive_pool, average_pool, bilinear, max_pool, reduction
from dropclass_deploy.analysis.unravel.rules.moves import concatenated, moved, same_order
from dropclass_deploy.analysis.unravel.rules.pointwise import added, multiplied, normalised, stays, turns
from dropclass_deploy.analysis.unravel.rules.weighted import convolution, matrix_product
from dropclass_deploy.analysis.unravel.tape import Step, Tape, Value
from dropclass_deploy.core.errors import ModelError

Rule = Callable[[Step, Points, Tape], list[tuple[Value, Points]]]

_STAYS = (
    "relu",
    "hardtanh",
    "hardswish",
    "hardsigmoid",
    "silu",
    "sigmoid",
    "tanh",
    "gelu",
    "leaky_relu",
    "elu",
    "mish",
    "softplus",
    "clamp",
    "clamp_min",
    "clamp_max",
    "clone",
    "detach",
    "alias",
    "_to_copy",
    "lift_fresh",
    "dropout",
    "native_dropout",
    "_softmax",
    "_log_softmax",
)
_RESHAPES = ("view", "_unsafe_view", "reshape", "squeeze", "unsqueeze")
_MOVES = (
    "permute",
    "transpose",
    "t",
    "expand",
    "slice",
    "select",
    "split",
    "split_with_sizes",
    "chunk",
    "narrow",
    "unbind",
    "stack",
    "constant_pad_nd",
    "reflection_pad2d",
    "replication_pad2d",
    "roll",
    "flip",
    "index",
    "pixel_shuffle",
    "pixel_unshuffle",
    "channel_shuffle",
    "native_channel_shuffle",
    "unfold",
    "upsample_nearest2d",
    "_unsafe_index",
    "repeat",
)
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_STAYS, stays),
    **dict.fromkeys(_RESHAPES, same_order),
    **dict.fromkeys(_MOVES, moved),
    "cat": concatenated,
    "neg": turns,
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"), normalised),
    **dict.fromkeys(("native_layer_norm", "native_group_norm"), normalised),
    **dict.fromkeys(("add", "sub", "rsub"), added),
    **dict.fromkeys(("mul", "div"), multiplied),
    "convolution": convolution,
    **dict.fromkeys(("mm", "addmm"), matrix_product),
    **dict.fromkeys(("max_pool2d_with_indices", "adaptive_max_pool2d"), max_pool),
    "avg_pool2d": average_pool,
    "_adaptive_avg_pool2d": adaptive_pool,
    **dict.fromkeys(("mean", "sum", "amax"), reduction),
    "upsample_bilinear2d": bilinear,
}
_VALUELESS = {stays, moved, same_order, concatenated, turns, normalised, max_pool}

KEEPS = frozenset(name for name, rule in _RULES.items() if rule not in _VALUELESS)
"""Operators whose rule looks at the values of what is followed."""

POINTWISE = frozenset({*_STAYS, "neg"})
"""Operators of one tensor that leave every element where it is."""


def back_through(step: Step, points: Points, tape: Tape) -> list[tuple[Value, Points]]:
    """The points of a step's output as points of its inputs.

    Raises:
        ModelError: for an operator without a rule, by name.
    """
    rule = _RULES.get(step.name)
    if rule is None or (step.which and rule is not moved):
        raise ModelError(
            f"unravelling has no rule for the operator {step.name!r}",
            expected="a convolutional network: convolution, pooling, normalisation, sums, concatenation, resizing, gates",
            remedy="leave this network out of the unravelling",
        )
    return rule(step, points, tape)
