"""Find a network's classifier, how its logits are resized, and whether its input can be negative, by running it once.

Every 2-D convolution is watched during one no-grad eval pass. The classifier is the convolution whose output *is* the
network's logits, as they are or resized bilinearly (align_corners either way). RNG states, buffers and training modes
are as before afterwards, and no hook stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models.outputs import logits_of

_NON_NEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid)


@dataclass(frozen=True)
class Classifier:
    """What the probe found.

    Attributes:
        path: of the classifier in the model ("" when the model is itself the convolution).
        num_classes: C, channels of the logits.
        channels: K, channels of the classifier's input.
        align_corners: of the bilinear resize between the classifier and the logits; None when there is none.
        linear: whether it is one linear convolution (else S comes from vector-Jacobian products).
        non_negative: whether its input is the output of a ReLU-like activation, hence never negative.
    """

    path: str
    num_classes: int
    channels: int
    align_corners: bool | None
    linear: bool
    non_negative: bool


@dataclass
class _Call:
    """One run of a watched module."""

    path: str
    module: nn.Module
    features: Tensor
    output: Tensor


def find_classifier(model: nn.Module, path: str | None = None, example: Tensor | None = None) -> Classifier:
    """Find the classifier of ``model``.

    Args:
        model: its output holds logits (see ``models.logits_of``).
        path: name of the classifier (``model.get_submodule``), when it cannot be found or another head is meant; a head
            that is not one linear convolution can only be named.
        example: an input (N, channels, H, W); default 1×3×64×64 noise.

    Raises:
        ModelError: saying what was found and what to name.
    """
    named = None if path is None else _submodule(model, path)
    calls, logits, non_negative = _run(model, example, path, named)
    if path is not None:
        calls = [call for call in calls if call.path == path]
        if not calls:
            raise ModelError(
                f"the classifier {path!r} did not run when the model was probed", remedy="name another module"
            )
    matches = [(call, resize) for call in calls if (resize := _resize_between(call.output, logits)) is not None]
    if not matches:
        raise _not_found(model, calls, logits, path)
    call, resize = matches[-1]
    _check_once(call, calls)
    linear = isinstance(call.module, nn.Conv2d)
    if linear:
        check_convolution(call.module, call.path)
    return Classifier(
        path=call.path,
        num_classes=logits.shape[1],
        channels=call.features.shape[1],
        align_corners=resize.align_corners,
        linear=linear,
        non_negative=non_negative(call.features),
    )


def output_channels(model: nn.Module, size: tuple[int, int]) -> int:
    """C of the logits for an image of ``size`` (height, width), found by one pass that leaves the model as it was.

    Raises:
        ModelError: when the model fails on such an image.
    """
    _, logits, _ = _run(model, _example(model, size), None, None)
    return int(logits.shape[1])


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


@dataclass(frozen=True)
class _Resize:
    align_corners: bool | None


def _resize_between(output: Tensor, logits: Tensor) -> _Resize | None:
    """How ``output`` becomes ``logits``, or None when it does not."""
    if output.ndim != 4 or output.shape[:2] != logits.shape[:2]:
        return None
    # A resize in another memory layout or fused kernel may round differently in the last bits, no more.
    tolerance = 1e-4 * max(1.0, float(logits.abs().max()))
    if output.shape == logits.shape:
        return _Resize(None) if torch.allclose(output, logits, rtol=0, atol=tolerance) else None
    for align_corners in (False, True):
        resized = F.interpolate(output, size=logits.shape[-2:], mode="bilinear", align_corners=align_corners)
        if torch.allclose(resized, logits, rtol=0, atol=tolerance):
            return _Resize(align_corners)
    return None


def _run(model: nn.Module, example: Tensor | None, path: str | None, named: nn.Module | None) -> Any:
    """Calls of the watched modules in order, the logits, and a test for "output of a ReLU"."""
    calls: list[_Call] = []
    activations: list[Tensor] = []
    hooks = []
    for name, module in model.named_modules():
        watched = isinstance(module, nn.Conv2d) if named is None else module is named
        if watched:
            hooks.append(module.register_forward_hook(_recorder(name if named is None else path or "", calls)))
        elif isinstance(module, _NON_NEGATIVE):
            hooks.append(module.register_forward_hook(lambda _m, _i, output: activations.append(output)))
    try:
        with _untouched(model), torch.no_grad():
            logits = logits_of(model(_example(model) if example is None else example))
    except ModelError:
        raise
    except Exception as error:
        shape = "1×3×64×64 noise" if example is None else f"the example {tuple(example.shape)}"
        raise ModelError(
            f"the model failed on {shape}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            remedy="pass an input it takes: DropClass(model, example=tensor)",
        ) from error
    finally:
        for hook in hooks:
            hook.remove()

    def non_negative(features: Tensor) -> bool:
        same = any(a.data_ptr() == features.data_ptr() and a.shape == features.shape for a in activations)
        return same and bool((features >= 0).all())

    return calls, logits, non_negative


def _recorder(name: str, calls: list[_Call]) -> Any:
    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            # A copy: logits that are summed in place (y = a(x); y += b(x)) must not pass for the output of a.
            calls.append(_Call(name, module, inputs[0], output.clone()))

    return record


def _example(model: nn.Module, size: tuple[int, int] = (64, 64)) -> Tensor:
    """Noise rather than a constant: two convolutions must not agree by accident."""
    reference = next(model.parameters(), torch.zeros(()))
    noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    return noise.to(device=reference.device, dtype=reference.dtype)


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; RNG states, buffers and every module's training mode as before afterwards."""
    modes = {module: module.training for module in model.modules()}
    owners = {module: dict(module._buffers) for module in model.modules()}
    values = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = [p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"][:1]
    try:
        with torch.random.fork_rng(devices=devices):
            model.eval()
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for module, own in owners.items():
            # The very tensors: a forward pass may have put others in their place, or added some.
            module._buffers.clear()
            module._buffers.update(own)
        with torch.no_grad():
            for buffer, value in values:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def _submodule(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
        raise ModelError(
            f"the model has no module {path!r}", expected=f"for example {', '.join(convolutions[-3:]) or 'a Conv2d'}"
        ) from error


def _check_once(call: _Call, calls: list[_Call]) -> None:
    times = sum(other.module is call.module for other in calls)
    if times > 1:
        raise ModelError(
            f"the classifier {call.path!r} runs {times} times in one pass",
            expected="one pass through the classifier an image",
            remedy="wrap a model that uses it once",
        )


def _not_found(model: nn.Module, calls: list[_Call], logits: Tensor, path: str | None) -> ModelError:
    size = "×".join(str(side) for side in logits.shape[-2:])
    if path is not None:
        return ModelError(
            f"the output of {path!r} is not the model's logits ({logits.shape[1]} channels, {size})",
            expected="a module whose output, as it is or resized bilinearly, is the logits",
            remedy="name the last module before the resize",
        )
    heads = [call.path for call in calls if call.output.shape[1] == logits.shape[1]]
    found = (
        f"{len(heads)} convolutions with {logits.shape[1]} outputs ({', '.join(heads)})"
        if heads
        else (f"no convolution with {logits.shape[1]} outputs among {len(calls)}")
    )
    remedy = "name the module that makes the logits: DropClass(model, classifier='path')"
    if len(heads) > 1:
        remedy += ", or wrap a model in which one head makes them (added or averaged heads share no features)"
    return ModelError(
        f"the classifier of {type(model).__name__} cannot be found: {found}, and none gives the logits ({size}) "
        "as they are or resized bilinearly",
        expected="logits from one last linear Conv2d",
        remedy=remedy,
    )
