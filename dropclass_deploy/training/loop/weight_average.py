"""Exponential moving average (EMA) of a network's state: what is evaluated is steadier than the last step.

    average ← d · average + (1 − d) · current,    d = min(decay, (1 + n) / (10 + n)),    n updates before this one

The second term of the minimum is the warm-up of TensorFlow's ``tf.train.ExponentialMovingAverage(num_updates=n)``: without
it, the first weights (noise) would keep a share of decayⁿ for long. Buffers are averaged like parameters, as in timm's
``ModelEmaV3`` and torch's ``AveragedModel(use_buffers=True)``: BatchNorm's running statistics then belong to averaged
weights and need no second pass over the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """The moving average of a module's parameters and persistent buffers.

    Floating tensors are averaged in float32 at least (a bfloat16 average would not move at decay 0.999); integer ones
    (BatchNorm's counter) are copied.

    Args:
        module: whose state is averaged; the average starts as a copy of it. Always the bare module, without a
            distributed or compiled coat: the names of its tensors have to stay the same.
        decay: share of the old average that stays, in [0, 1).

    Attributes:
        decay: as given.
        updates: number of updates so far.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}: it must be in [0, 1)")
        self.decay = decay
        self.updates = 0
        self._average = {name: _copy(tensor) for name, tensor in _state(module).items()}
        self._swapped_in = False

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take the state of ``module`` in; call it after each optimiser step.

        Raises:
            ValueError: when the module has other tensors than the one averaged.
            RuntimeError: inside ``applied``, where the module holds the average itself.
        """
        if self._swapped_in:
            raise RuntimeError(
                "update() was called inside applied(): the module holds the average, not the training state"
            )
        current = self._matching(_state(module))
        self._follow(current)
        inexact = [name for name, tensor in self._average.items() if _is_inexact(tensor)]
        # torch's own update: one fused linear interpolation for all tensors (its annotations are incomplete).
        get_ema_multi_avg_fn(self._decay_now())(  # type: ignore[no-untyped-call]
            [self._average[name] for name in inexact],
            [current[name].to(self._average[name].dtype) for name in inexact],
            None,
        )
        for name in self._average.keys() - set(inexact):
            self._average[name].copy_(current[name])
        self.updates += 1

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """``module`` holds the average inside the block and its own state, bit for bit, after it.

        The tensors stay the same objects: an optimiser's references stay valid. What the block changes in them is lost.

        Raises:
            ValueError: when the module has other tensors than the one averaged.
        """
        before = {name: tensor.detach().clone() for name, tensor in self._matching(_state(module)).items()}
        was, self._swapped_in = self._swapped_in, True
        try:
            _write(module, self._average)
            yield
        finally:
            _write(module, before)
            self._swapped_in = was

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: ``{"updates": int, "average": {name: tensor}}``; the tensors are not copied."""
        return {"updates": self.updates, "average": dict(self._average)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint; the average stays on its device.

        Raises:
            ValueError: when the checkpoint is of another network; nothing is changed then.
        """
        loaded = self._matching(state["average"])
        for name, tensor in self._average.items():
            tensor.copy_(loaded[name])
        self.updates = int(state["updates"])

    def _decay_now(self) -> float:
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    def _matching(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """``tensors``, if they are of the names and shapes averaged."""
        for name in [*self._average, *tensors]:
            ours, theirs = self._average.get(name), tensors.get(name)
            if ours is None or theirs is None or ours.shape != theirs.shape:
                raise ValueError(
                    f"{name!r} is {_shape(theirs)}, and the average was made of a network where it is {_shape(ours)}"
                )
        return tensors

    def _follow(self, current: dict[str, Tensor]) -> None:
        """Move the average to where the module is now."""
        for name, tensor in self._average.items():
            if tensor.device != current[name].device:
                self._average[name] = tensor.to(current[name].device)


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; a tied tensor under each of its names, for a move may untie it.

    Not ``state_dict()``: its hooks may hand out copies, and ``applied`` has to write into the tensors themselves.
    """
    return {
        f"{prefix}.{name}" if prefix else name: tensor
        for prefix, child in module.named_modules()
        for name, tensor in [*child._parameters.items(), *child._buffers.items()]
        if tensor is not None and name not in child._non_persistent_buffers_set
    }


@torch.no_grad()
def _write(module: nn.Module, values: dict[str, Tensor]) -> None:
    # Looked up anew each time: a move to another device makes new buffers.
    for name, tensor in _state(module).items():
        tensor.copy_(values[name])


def _copy(tensor: Tensor) -> Tensor:
    wide = torch.promote_types(tensor.dtype, torch.float32) if _is_inexact(tensor) else tensor.dtype
    return tensor.detach().to(wide, copy=True)


def _is_inexact(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
