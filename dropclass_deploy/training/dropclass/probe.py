"""Find a network's classifier, how its logits are resized, and whether its input can be negative, by running it.

Every 2-D convolution is watched during a no-grad eval pass. The classifier is the convolution whose output *is* the
network's logits, as they are or resized bilinearly (align_corners either way). The network is left as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.training.dropclass.probe_match import Match, confirmed_match, ways_at
from dropclass_deploy.training.dropclass.probe_run import Call, Sight, noise_images, watch
from dropclass_deploy.training.dropclass.tail import after_classifier

_SIZE = (64, 64)
# Odd, so that a network that resizes only what its stride does not divide shows it; more than twice the first size, so
# that features of one pixel become several, without which the two kinds of resize look alike.
_LARGER = (141, 157)


@dataclass(frozen=True)
class Classifier:
    """What the probe found.

    Attributes:
        path: of the classifier in the model ("" when the model is itself the convolution).
        num_classes: C, channels of the logits.
        channels: K, channels of the classifier's input.
        align_corners: of the bilinear resize between the classifier and the logits; None when there is none, or none
            that is bilinear (a named convolution): the loss then resizes the branch's logits straight to the labels,
            bilinearly with align_corners False.
        linear: whether it is one linear convolution (else S comes from vector-Jacobian products).
        non_negative: whether its input is the output of a ReLU-like activation module that nothing changed since, hence
            never negative, in training as in eval mode; False when that is not certain.
        tail: what stands between the classifier and the logits beside a bilinear resize; None for nothing: training may
            then leave the network's own resize out.
    """

    path: str
    num_classes: int
    channels: int
    align_corners: bool | None
    linear: bool
    non_negative: bool
    tail: str | None = None


def find_classifier(model: nn.Module, path: str | None = None, example: Tensor | None = None) -> Classifier:
    """Find the classifier of ``model``.

    Args:
        model: its output holds logits (see ``models.logits_of``).
        path: name of the classifier (``model.get_submodule``), when it cannot be found. A Conv2d with C outputs may be
            followed by anything: an upsampling that is not bilinear or has two steps, a temperature, a crop, a
            log-softmax. Any other module is a head of its own and has to give the logits, as they are or resized.
        example: an input (N, channels, H, W). Default: 1×3×64×64 noise and, where that shows no resize or cannot tell
            which, 1×3×141×157 noise as well.

    Raises:
        ModelError: saying what was found and what to name.
    """
    watched = _convolutions(model) if path is None else {path: _submodule(model, path)}
    images = noise_images(model, _SIZE) if example is None else example
    seen = watch(model, images, watched)
    if path is not None:
        _check_named(seen, path)
    match = confirmed_match(model, images, seen) or _taken_at_its_word(model, images, seen, path)
    call = match.call
    _check_once(call, seen.calls)
    linear = isinstance(call.module, nn.Conv2d)
    if linear:
        check_convolution(call.module, call.path)
    return Classifier(
        path=call.path,
        num_classes=seen.logits.shape[1],
        channels=call.features.shape[1],
        align_corners=_align_corners(model, match, example is None),
        linear=linear,
        non_negative=call.non_negative and _non_negative_in_training(model, images, call),
        tail=after_classifier(model, match, images) or _at_odd_sizes(model, match, example),
    )


def output_channels(model: nn.Module, size: tuple[int, int]) -> int:
    """C of the logits for an image of ``size`` (height, width), found by one pass that leaves the model as it was.

    Raises:
        ModelError: when the model fails on such an image.
    """
    return int(watch(model, noise_images(model, size), {}).logits.shape[1])


def check_convolution(module: nn.Module, path: str) -> None:
    """Refuse a convolution that is not a classifier at its input's own resolution.

    Raises:
        ModelError: unless stride is 1, groups 1 and the padding keeps the size.
    """
    if not isinstance(module, nn.Conv2d):
        raise ModelError(f"{path!r} is a {type(module).__name__}", expected="a Conv2d")
    reasons = []
    if module.stride != (1, 1):
        reasons.append(f"stride {module.stride}")
    if module.groups != 1:
        reasons.append(f"groups {module.groups}")
    same = tuple(d * (k - 1) / 2 for d, k in zip(module.dilation, module.kernel_size, strict=True))
    padding = (0, 0) if module.padding == "valid" else module.padding
    if padding not in ("same", same):
        reasons.append(f"padding {module.padding} for kernel {module.kernel_size}")
    if reasons:
        raise ModelError(
            f"the classifier {path!r} has {' and '.join(reasons)}",
            expected="stride 1, groups 1 and a padding that keeps the size, so that each logit belongs to one feature pixel",
            remedy="name a head that contains it with classifier='path', which is then treated as non-linear",
        )


def _taken_at_its_word(model: nn.Module, images: Tensor, seen: Sight, path: str | None) -> Match:
    """A named convolution whose output takes part in the logits in whatever way; else the error."""
    if path is None:
        raise _not_found(model, seen)
    call = seen.calls[-1]
    if not isinstance(call.module, nn.Conv2d):
        raise _not_the_logits(path, seen)
    again = watch(model, images, {path: call.module}, substitute=True)
    if torch.equal(again.logits, seen.logits):
        raise _not_the_logits(path, seen)
    return Match(call, [])


def _align_corners(model: nn.Module, match: Match, look_again: bool) -> bool | None:
    ways = match.align_corners
    if look_again and ways and (None in ways or len(ways) > 1):
        try:
            ways = ways_at(model, noise_images(model, _LARGER), match.call) or ways
        except ModelError:
            # A model that takes the first size only is fine: what it showed there is then all there is to know.
            return ways[0]
    # Both kinds give the same where they cannot be told apart; False comes first.
    return ways[0] if ways else None


def _at_odd_sizes(model: nn.Module, match: Match, example: Tensor | None) -> str | None:
    """What follows the classifier for images that a network may have to pad or crop."""
    larger = noise_images(model, _LARGER)
    try:
        if example is not None or watch(model, larger, {}).logits is None:
            return None
    except ModelError:
        return None  # a network for some sizes only
    return after_classifier(model, match, larger)


def _non_negative_in_training(model: nn.Module, images: Tensor, call: Call) -> bool:
    try:
        # Two images: in training, a BatchNorm after a global pooling refuses one.
        seen = watch(model, torch.cat([images, 0.5 * images]), {call.path: call.module}, training=True)
    except ModelError:
        return False
    return bool(seen.calls) and all(again.non_negative for again in seen.calls)


def _convolutions(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def _submodule(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        names = list(_convolutions(model))
        raise ModelError(
            f"the model has no module {path!r}", expected=f"for example {', '.join(names[-3:]) or 'a Conv2d'}"
        ) from error


def _check_named(seen: Sight, path: str) -> None:
    """Refuse a named module that did not run on one tensor, or a convolution with other outputs than the logits."""
    if path in seen.odd:
        raise ModelError(
            f"the classifier {path!r} {seen.odd[path]}",
            expected="one feature tensor (N, K, h, w) in and logits (N, C, h, w) out",
            remedy="name a module inside it or after it",
        )
    if not seen.calls:
        raise ModelError(f"the classifier {path!r} did not run when the model was probed", remedy="name another module")
    call, num_classes = seen.calls[-1], seen.logits.shape[1]
    if isinstance(call.module, nn.Conv2d) and call.output.shape[1] != num_classes:
        raise ModelError(
            f"the convolution {path!r} has {call.output.shape[1]} outputs",
            expected=f"{num_classes}, as many as the model's logits have channels",
            remedy="name the convolution that makes the logits",
        )


def _check_once(call: Call, calls: list[Call]) -> None:
    times = sum(other.module is call.module for other in calls)
    if times > 1:
        raise ModelError(
            f"the classifier {call.path!r} runs {times} times in one pass",
            expected="one pass through the classifier an image",
            remedy="wrap a model that uses it once",
        )


def _size(logits: Tensor) -> str:
    return "×".join(str(side) for side in logits.shape[-2:])


def _not_the_logits(path: str, seen: Sight) -> ModelError:
    return ModelError(
        f"the output of {path!r} is not the model's logits ({seen.logits.shape[1]} channels, {_size(seen.logits)})",
        expected="a Conv2d that the logits are made from, or a head whose output, as it is or resized bilinearly, they are",
        remedy="name the last convolution, or the last module before the resize",
    )


def _not_found(model: nn.Module, seen: Sight) -> ModelError:
    num_classes = seen.logits.shape[1]
    heads = [call.path for call in seen.calls if call.output.shape[1] == num_classes]
    found = f"no convolution with {num_classes} outputs among {len(seen.calls)}"
    if heads:
        found = f"{len(heads)} convolutions with {num_classes} outputs ({', '.join(heads)})"
    name = heads[0] if len(heads) == 1 else "path"
    remedy = f"name the module that makes the logits: DropClass(model, classifier={name!r})"
    if len(heads) > 1:
        remedy += (
            ", or wrap a model in which one head makes them (a sum or mean of heads is not supported as one classifier)"
        )
    return ModelError(
        f"the classifier of {type(model).__name__} cannot be found: {found}, and none gives the logits "
        f"({_size(seen.logits)}) as they are or resized bilinearly",
        expected="logits from one last linear Conv2d",
        remedy=remedy,
    )
