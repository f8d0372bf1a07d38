"""Fit a checkpoint to a network: what can be adapted is adapted and said, anything else is refused with the keys.

* Prefixes that wrappers leave (``module.``, ``_orig_mod.``, ``model.``, ``network.``) fall off; so does the name of the
  part (``encoder.``, ``backbone.``, ``features.``) when a backbone is fitted.
* The first convolution takes weights made for another number of input channels: see ``adapt_channels``.
* A classifier made for another number of classes keeps its random start; a warning of the logger ``dropclass_deploy``
  names its keys.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError

StateDict = Mapping[str, Tensor]
WRAPPERS = ("module.", "_orig_mod.", "model.", "network.")
PARTS = ("encoder.", "backbone.", "features.")
_SHOWN = 4  # keys of each kind in an error

log = logging.getLogger("dropclass_deploy")


@dataclass(frozen=True)
class Target:
    """A part of a network that a checkpoint may be of.

    Attributes:
        module: the part; its state dict is what is wanted.
        ignored: names of tensors that a checkpoint may have beside it (a backbone's classification head); one that ends
            in a dot stands for all that begin so.
        prefixes: of the part's name in a larger network; what does not begin so is then left aside.
    """

    module: nn.Module
    ignored: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()


@dataclass
class Fit:
    """What a checkpoint gives to a target, and what stands in the way.

    Attributes:
        values: target key → tensor.
        missing: target keys without a tensor.
        unexpected: checkpoint keys without a place.
        other_shape: both shapes of each pair that does not fit, as text.
        random: keys of a classifier with another number of classes.
        adapted: what was done to the first convolution.
        left_aside: how many tensors of other parts of a larger network the checkpoint holds.
    """

    target: Target
    values: dict[str, Tensor] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    other_shape: list[str] = field(default_factory=list)
    random: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    left_aside: int = 0

    @property
    def faults(self) -> int:
        """How many tensors do not fit."""
        return len(self.missing) + len(self.unexpected) + len(self.other_shape)


def load_fitting(targets: Iterable[Target], state: StateDict, name: str, num_classes: int) -> None:
    """Load ``state`` into the target that it fits; nothing is written when it fits none.

    Args:
        targets: what the checkpoint may be of: the whole network first, then parts of it.
        state: the checkpoint.
        name: of the checkpoint, for messages.
        num_classes: C of the network.

    Raises:
        ModelError: with the first missing and unexpected keys, the other shapes, and how many there are of each.
    """
    targets = list(targets)
    whole = targets[0].module.state_dict().keys()
    fits = [
        fit(target, variant, num_classes, left_aside=len(state) - len(variant))
        for target in targets
        for variant in _variants(state, target.prefixes, whole)
    ]
    # A checkpoint that shares no tensor has no place here, however few tensors it lacks.
    best = min(fits, key=lambda one: (not one.values, one.faults))
    if best.faults or not best.values:
        raise _refusal(best, name)
    _load(best, name)


def fit(target: Target, state: StateDict, num_classes: int, left_aside: int = 0) -> Fit:
    """Match by name, whatever separates the parts of a name: timm flattens ``stages.0`` to ``stages_0``."""
    result, wanted = Fit(target, left_aside=left_aside), target.module.state_dict()
    given = {_plain(key): key for key in state}
    first = next((key for key, value in wanted.items() if value.ndim == 4), None)
    for key, own in wanted.items():
        source = given.pop(_plain(key), None)
        if source is None:
            # torch counts batches since 0.4.1; older files have no such count and lose nothing by it.
            if not key.endswith("num_batches_tracked"):
                result.missing.append(key)
        else:
            _place(result, key, own, state[source], num_classes, is_first=key == first)
    ignored = tuple(name for name in target.ignored if name.endswith("."))
    result.unexpected = [key for key in given.values() if key not in target.ignored and not key.startswith(ignored)]
    return result


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Weights (K, from, kh, kw) of a first convolution for ``channels`` input channels: (K, channels, kh, kw).

    Fewer channels: channel j takes the sum of the old channels j, j + channels, … More: the old ones repeat in turn, each
    divided by how often it occurs. Either way the sum over the channels stays, and so does the response to an image whose
    channels are all alike.
    """
    old = weight.shape[1]
    if channels < old:
        return torch.stack([weight[:, first::channels].sum(1) for first in range(channels)], dim=1)
    sources = torch.arange(channels) % old
    counts = torch.bincount(sources, minlength=old)
    return weight[:, sources] / counts[sources].to(weight.dtype)[:, None, None]


def _place(result: Fit, key: str, own: Tensor, value: Tensor, num_classes: int, *, is_first: bool) -> None:
    if own.shape == value.shape:
        result.values[key] = value
    elif is_first and value.ndim == 4 and _without(own, 1) == _without(value, 1):
        result.values[key] = adapt_channels(value, own.shape[1])
        result.adapted.append(f"{key} from {value.shape[1]} input channels to {own.shape[1]}")
    elif own.ndim and value.ndim and own.shape[0] == num_classes and _without(own, 0) == _without(value, 0):
        result.random.append(key)
    else:
        result.other_shape.append(f"{key} {tuple(value.shape)} for {tuple(own.shape)}")


def _without(tensor: Tensor, axis: int) -> tuple[int, ...]:
    return tuple(tensor.shape[:axis] + tensor.shape[axis + 1 :])


def _plain(key: str) -> str:
    return key.removeprefix("model.").replace(".", "_")


def _variants(state: StateDict, parts: tuple[str, ...], whole: Collection[str]) -> Iterator[StateDict]:
    """The state dict as it is, without what wrappers put before all its names, and its parts of a given name.

    No part is cut out of a checkpoint of the whole network: where that does not fit, the user wants to know.
    """
    variants = [state]
    while prefix := next((one for one in WRAPPERS if all(key.startswith(one) for key in variants[-1])), None):
        variants.append(_cut(variants[-1], prefix))
        if not variants[-1]:
            break
    yield from variants
    for variant in variants:
        for part in parts:
            cut = _cut(variant, part)
            if cut and not any(key in whole for key in variant if not key.startswith(part)):
                yield cut


def _cut(state: StateDict, prefix: str) -> StateDict:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _load(fitted: Fit, name: str) -> None:
    # Not strict: the classifier's own start stays, and counts of batches that an old file lacks.
    fitted.target.module.load_state_dict(fitted.values, strict=False)
    for change in fitted.adapted:
        log.warning("the weights %r were adapted: %s", name, change)
    if fitted.left_aside:
        log.warning("of the weights %r, %d tensors of other parts were left aside", name, fitted.left_aside)
    if fitted.random:
        log.warning(
            "the weights %r are of another number of classes: %s kept their random start",
            name,
            ", ".join(fitted.random),
        )


def _refusal(fitted: Fit, name: str) -> ModelError:
    kinds = {
        "missing": fitted.missing,
        "unexpected": fitted.unexpected,
        "of another shape": fitted.other_shape,
    }
    parts = [f"{len(keys)} tensors {kind} ({_first(keys)})" for kind, keys in kinds.items() if keys]
    return ModelError(
        f"the weights {name!r} do not fit: {', '.join(parts)}",
        expected=f"the {len(fitted.target.module.state_dict())} tensors of this network or of its backbone",
        remedy="take weights of the same network, or model.weights: null",
    )


def _first(keys: list[str]) -> str:
    telling = sorted(keys, key=lambda key: "num_batches_tracked" in key)
    return ", ".join(telling[:_SHOWN]) + (", …" if len(keys) > _SHOWN else "")
