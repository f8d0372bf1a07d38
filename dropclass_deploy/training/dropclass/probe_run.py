"""One no-grad pass of a network under watch, which leaves the network exactly as it was.

RNG states, buffers and training modes are as before afterwards, no hook stays and no parameter is ever written to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models.modes import evaluating
from dropclass_deploy.models.outputs import logits_of

# Exact types: a subclass may do something else in its forward.
_NON_NEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid)
_KEEP_THE_SIGN = (nn.Dropout, nn.Dropout1d, nn.Dropout2d)


@dataclass(frozen=True)
class Call:
    """One run of a watched module.

    Attributes:
        path: the name under which it was watched.
        module: the module.
        features: its input.
        output: a copy of what it gave: logits that are summed in place (y = a(x); y += b(x)) do not pass for a's.
        non_negative: whether its input is the output of a ReLU-like activation, as that activation left it.
    """

    path: str
    module: nn.Module
    features: Tensor
    output: Tensor
    non_negative: bool


@dataclass(frozen=True)
class Sight:
    """What one pass showed.

    Attributes:
        calls: of the watched modules, in order.
        odd: per path, how a call differed from one tensor in, one tensor out ("takes a dict").
        logits: (N, C, H, W).
    """

    calls: list[Call]
    odd: dict[str, str]
    logits: Tensor


def watch(
    model: nn.Module,
    images: Tensor,
    watched: Mapping[str, nn.Module],
    *,
    substitute: bool = False,
    training: bool = False,
) -> Sight:
    """Run ``model`` once and note the calls of the watched modules.

    Args:
        model: its output holds logits (see ``models.logits_of``).
        images: (N, channels, H, W).
        watched: modules by path.
        substitute: give fixed noise, another for each call, in place of what the watched modules compute; what the
            logits are made of then shows whatever the weights are, zeros included.
        training: run in training mode instead of eval mode.

    Raises:
        ModelError: when the model fails on the images or returns no logits.
    """
    recorder = _Recorder(substitute)
    hooks = recorder.attach(model, watched)
    try:
        # Tensors made in inference mode count no changes, which ``_Recorder`` needs.
        with untouched(model), torch.inference_mode(False), torch.no_grad():
            set_mode(model, training)
            logits = logits_of(model(images)).clone()
    except ModelError:
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise ModelError(
            f"the model failed on an input {tuple(images.shape)}: {message}",
            remedy="pass an input it takes: DropClass(model, example=tensor)",
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return Sight(recorder.calls, recorder.odd, logits)


def set_mode(model: nn.Module, training: bool) -> None:
    """Training or eval mode; a BatchNorm over processes stays in eval mode, or one process would wait for the others."""
    model.train(training)
    for module in model.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.eval()


class _Recorder:
    """The forward hooks of one pass."""

    def __init__(self, substitute: bool) -> None:
        self.calls: list[Call] = []
        self.odd: dict[str, str] = {}
        self._substitute = substitute
        self._activations: list[tuple[Tensor, int]] = []

    def attach(self, model: nn.Module, watched: Mapping[str, nn.Module]) -> list[RemovableHandle]:
        activations = [module for module in model.modules() if type(module) in _NON_NEGATIVE]
        calls = [module.register_forward_hook(self._call_hook(path)) for path, module in watched.items()]
        kept = [module for module in model.modules() if type(module) in _KEEP_THE_SIGN]
        calls += [module.register_forward_hook(self._note_kept_sign) for module in kept]
        return calls + [module.register_forward_hook(self._note_activation) for module in activations]

    def _note_activation(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not output.is_inference():
            self._activations.append((output, output._version))

    def _note_kept_sign(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and self._never_negative(inputs[0]):
            self._note_activation(module, inputs, output)

    def _call_hook(self, path: str) -> Callable[[nn.Module, tuple[Any, ...], Any], Tensor | None]:
        def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor | None:
            oddity = _oddity(inputs, output)
            if oddity is not None:
                self.odd[path] = oddity
                return None
            if self._substitute:
                output = _noise_like(output, seed=len(self.calls))
            non_negative = self._never_negative(inputs[0])
            self.calls.append(Call(path, module, inputs[0], output.clone(), non_negative))
            return output if self._substitute else None

        return note

    def _never_negative(self, features: Tensor) -> bool:
        if features.is_inference():
            return False
        # The version counts in-place changes: ``x = relu(y); x += z`` keeps the storage and may be negative, if not yet.
        same = any(
            kept.data_ptr() == features.data_ptr() and kept.shape == features.shape and version == features._version
            for kept, version in self._activations
        )
        return same and bool((features >= 0).all())


def _oddity(inputs: tuple[Any, ...], output: Any) -> str | None:
    """How a call differs from "one tensor in, one tensor out", or None."""
    if not inputs:
        return "takes its input by keyword"
    if len(inputs) > 1:
        return f"takes {len(inputs)} inputs"
    if not isinstance(inputs[0], Tensor):
        return f"takes a {_kind(inputs[0])}"
    return None if isinstance(output, Tensor) else f"returns a {_kind(output)}"


def _kind(value: Any) -> str:
    return "dict" if isinstance(value, Mapping) else type(value).__name__


def _noise_like(tensor: Tensor, seed: int) -> Tensor:
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed))
    return noise.to(device=tensor.device, dtype=tensor.dtype)


def noise_images(model: nn.Module, size: tuple[int, int]) -> Tensor:
    """Noise (1, 3, height, width) of the model's dtype and device; a constant would hide how pixels are mixed."""
    reference = next(model.parameters(), torch.zeros(()))
    noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    return noise.to(device=reference.device, dtype=reference.dtype)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; RNG states, buffers and every module's training mode as before afterwards."""
    owners = {module: dict(module._buffers) for module in model.modules()}
    values = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = [p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"][:1]
    try:
        with torch.random.fork_rng(devices=devices), evaluating(model):
            yield
    finally:
        for module, own in owners.items():
            # The very tensors: a forward pass may have put others in their place, or added some.
            module._buffers.clear()
            module._buffers.update(own)
        with torch.no_grad():
            for buffer, value in values:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
