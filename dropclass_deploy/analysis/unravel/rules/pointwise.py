"""Operators that leave a value where it is, and those of two tensors of which one is followed."""

from __future__ import annotations

import torch
from torch import Tensor

from dropclass_deploy.analysis.unravel.points import Points
from dropclass_deploy.analysis.unravel.rules.shapes import broadcast_back, element_of
from dropclass_deploy.analysis.unravel.tape import Step, Tape, Value
from dropclass_deploy.core.errors import ModelError

Moved = list[tuple[Value, Points]]

GATES = frozenset({"sigmoid", "hardsigmoid", "softmax", "_softmax", "tanh"})


def stays(step: Step, points: Points, tape: Tape) -> Moved:
    """An activation: its place, and its direction, as all of them rise where they matter (SiLU and hard-swish almost)."""
    del tape
    return [(step.inputs()[0], points)]


def turns(step: Step, points: Points, tape: Tape) -> Moved:
    """A negation: what raises it lowers its input."""
    del tape
    return [(step.inputs()[0], points.moved(points.index, -points.sign))]


def normalised(step: Step, points: Points, tape: Tape) -> Moved:
    """A normalisation with fixed statistics or over the values beside it: its place; a negative scale turns the direction.

    Raises:
        ModelError: for BatchNorm in training mode.
    """
    del tape
    if step.arguments.get("training"):
        raise ModelError("a BatchNorm is in training mode", expected="a network in eval mode")
    source = step.inputs()[0]
    scale = step.arguments.get("weight")
    if scale is None:
        return [(source, points)]
    if step.name == "native_layer_norm":
        place = points.index % scale.numel()
    else:
        inner = 1
        for size in step.output.shape[2:]:
            inner *= size
        place = points.index // inner % step.output.shape[1]
    return [(source, points.moved(points.index, points.sign * _direction(scale.reshape(-1)[place])))]


def added(step: Step, points: Points, tape: Tape) -> Moved:
    """A sum or difference: on along the summand that contributes most; constants have no place.

    As CNN-fixations decides at a residual connection: one branch, the stronger one at this point.
    """
    first, second = step.arguments["self"], step.arguments["other"]
    scale = float(step.arguments.get("alpha", 1))
    factors = {"add": (1.0, scale), "sub": (1.0, -scale), "rsub": (-scale, 1.0)}[step.name]
    followed = [(one, factor) for one, factor in zip((first, second), factors, strict=True) if isinstance(one, Value)]
    places = [broadcast_back(points.index, step.output.shape, one.shape) for one, _ in followed]
    if len(followed) == 1:
        return [(followed[0][0], _turned(points, places[0], followed[0][1]))]
    given = [
        tape.elements(one)[place] * factor * points.sign for (one, factor), place in zip(followed, places, strict=True)
    ]
    to_first = given[0] >= given[1]
    result: Moved = []
    for (one, factor), place, chosen in zip(followed, places, (to_first, ~to_first), strict=True):
        result.append((one, _turned(points.where(chosen), place[chosen], factor)))
    return result


def multiplied(step: Step, points: Points, tape: Tape) -> Moved:
    """A product or quotient: on along what is gated, not along the gate; a negative gate turns the direction.

    The gate is the factor with fewer elements (one value a channel), else the one that a sigmoid or softmax gave, else the
    second.

    Raises:
        ModelError: where a constant is divided by what comes from the image.
    """
    first, second = step.arguments["self"], step.arguments["other"]
    if isinstance(second, Value) and (not isinstance(first, Value) or _is_gate(first, second, tape)):
        first, second = second, first
        if step.name == "div":
            raise ModelError("something is divided by what comes from the image", expected="a product")
    gate = tape.elements(second) if isinstance(second, Value) else None
    shape = step.output.shape
    if isinstance(second, Value) and gate is not None:
        factor = gate[broadcast_back(points.index, shape, second.shape)]
    else:
        factor = element_of(second, points.index, shape)
    place = broadcast_back(points.index, shape, first.shape)
    return [(first, points.moved(place, points.sign * _direction(factor)))]


def _is_gate(first: Value, second: Value, tape: Tape) -> bool:
    sizes = [torch.Size(one.shape).numel() for one in (first, second)]
    if sizes[0] != sizes[1]:
        return sizes[0] < sizes[1]
    made_by = {step.output.id: step.name for step in tape.steps if step.output.id in (first.id, second.id)}
    return made_by.get(first.id) in GATES and made_by.get(second.id) not in GATES


def _turned(points: Points, place: Tensor, factor: float) -> Points:
    return points.moved(place, points.sign * (1 if factor > 0 else -1 if factor < 0 else 0))


def _direction(values: Tensor) -> Tensor:
    return torch.sign(values).long()
