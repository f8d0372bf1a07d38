"""BatchNorm over the batches of all processes, for as long as a block lasts.

Several processes with small batches each would otherwise train another network than one process with the whole batch.
torch's ``nn.SyncBatchNorm`` does it on GPUs only, and its converter puts new modules in the old ones' places. Here a
BatchNorm stays the object it is and changes its *class* for the time of the block (as torch's own lazy modules do): every
alias, hook, parameter, buffer, mode and ``state_dict`` key stays what it was because nothing is moved.

On a GPU the class is torch's; on a CPU it is ours, with Chan, Golub and LeVeque's pairwise combination of means and sums
of squared deviations (1979, eq. 2.1): exact for unequal batches, and without the cancellation of E[x²] − E[x]².
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from dropclass_deploy.core.errors import ModelError


@contextmanager
def synchronised(module: nn.Module) -> Iterator[None]:
    """Inside the block, every BatchNorm of ``module`` in training mode uses the statistics of all processes' batches.

    Outputs, running statistics and gradients with respect to the inputs are those of one process with the whole batch, when
    its loss is the *sum* of the processes' losses. Gradients of weight and bias stay each process's own share, which sum up
    to the whole: ``DistributedDataParallel`` (built inside the block or before it) averages them as all others.

    A BatchNorm in eval mode (a frozen one) uses its running statistics as ever; torchvision's ``FrozenBatchNorm2d`` has no
    statistics to share. Every process has to run the same BatchNorms in the same order, or the others wait for it. Without
    a process group, or with one process, nothing happens.

    Raises:
        ModelError: for a subclass of BatchNorm whose ``forward`` is not known here.
    """
    layers = _layers(module) if _processes() > 1 else []
    before: list[tuple[_BatchNorm, Any]] = [(layer, type(layer)) for layer in layers]
    on_cpu = _is_on_cpu(module)
    try:
        for layer, kind in before:
            layer.__class__ = _synchronised_class(kind, on_cpu)
        yield
    finally:
        for layer, kind in before:
            layer.__class__ = kind


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _is_on_cpu(module: nn.Module) -> bool:
    tensors = [*module.parameters(), *module.buffers()]
    return all(tensor.device.type == "cpu" for tensor in tensors)


def _layers(module: nn.Module) -> list[_BatchNorm]:
    """The BatchNorms that are not synchronised yet."""
    found = [
        (name, layer)
        for name, layer in module.named_modules()
        if isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm | _OnCpu)
    ]
    for name, layer in found:
        if type(layer).forward not in (_BatchNorm.forward, BatchNormAct2d.forward):
            raise ModelError(
                f"{name or 'the model'} is a {type(layer).__name__}, a BatchNorm with a forward pass of its own: "
                "it cannot be synchronised over processes",
                expected="torch's BatchNorm or timm's BatchNormAct2d",
                remedy="replace it, or train in one process",
            )
    return [layer for _, layer in found]


@cache
def _synchronised_class(kind: type, on_cpu: bool) -> type[_BatchNorm]:
    """A subclass of ``kind``: what asks ``isinstance(layer, nn.BatchNorm2d)`` gets the answer it had."""
    return type(f"Synchronised{kind.__name__}", (_OnCpu if on_cpu else _OnGpu, kind), {})


class _OnGpu(nn.SyncBatchNorm):
    """torch's forward pass, then timm's activation if there is one."""

    process_group = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        return _activated(self, super().forward(input))


class _OnCpu(_BatchNorm):
    """Our forward pass in training mode; what the class was in eval mode."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        mean, squares, count = _statistics(input.detach())
        self._track(mean, squares, count)
        invstd = (squares / count + self.eps).rsqrt()
        return _activated(self, _Normalise.apply(input, self.weight, self.bias, mean, invstd, count))

    @torch.no_grad()
    def _track(self, mean: Tensor, squares: Tensor, count: float) -> None:
        """Move the running statistics; as in torch, with the unbiased variance, and a plain mean if momentum is None."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return  # track_running_stats=False
        self.num_batches_tracked.add_(1)
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_((squares / (count - 1)).to(self.running_var.dtype), share)


def _activated(layer: nn.Module, normalised: Tensor) -> Tensor:
    """BatchNormAct2d holds what follows the normalisation."""
    if isinstance(layer, BatchNormAct2d):
        activated: Tensor = layer.act(layer.drop(normalised))
        return activated
    return normalised


@torch.no_grad()
def _statistics(images: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean (C,), sum of squared deviations from it (C,), both float64, and number of values a channel, of all processes."""
    wide, axes = images.to(_wide(images)), _all_but_channels(images)
    count = images.numel() // images.shape[1]
    local = wide.new_zeros(3, images.shape[1], dtype=torch.float64)  # count, mean, sum of squared deviations
    if count:
        variance, mean = torch.var_mean(wide, axes, correction=0)
        local = torch.stack([torch.full_like(mean, count), mean, variance * count]).double()
    every = [torch.empty_like(local) for _ in range(_processes())]
    dist.all_gather(every, local)
    counts, means, squares = torch.stack(every, dim=1)  # each (processes, C)
    total = counts.sum(0)
    if total[0] <= 1:
        # torch's own words: whoever knows them from one process knows them here.
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(images.shape)}")
    mean = (counts * means).sum(0) / total
    return mean, (squares + counts * (means - mean).square()).sum(0), float(total[0])


class _Normalise(torch.autograd.Function):
    """y = x̂ · weight + bias with x̂ = (x − mean) · invstd, and the gradient that knows that mean and invstd come from x."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor, count: float
    ) -> Tensor:
        ctx.save_for_backward(images, weight, bias, mean, invstd)
        ctx.count = count
        result = _standardised(images, mean, invstd)
        if weight is not None:
            result = result * _along_channels(weight, result)
        if bias is not None:
            result = result + _along_channels(bias, result)
        return result.to(images.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Ioffe and Szegedy 2015, section 3, with the two sums over the batch taken over all processes."""
        images, weight, bias, mean, invstd = ctx.saved_tensors
        standardised = _standardised(images, mean, invstd)
        wide, axes = gradient.to(standardised.dtype), _all_but_channels(images)
        sums = torch.stack([wide.sum(axes), (wide * standardised).sum(axes)]).double()
        to_bias = None if bias is None else sums[0].to(bias.dtype)
        to_weight = None if weight is None else sums[1].to(weight.dtype)
        to_images = None
        if ctx.needs_input_grad[0]:
            whole = sums.clone()  # the process's own sums are the gradients above
            dist.all_reduce(whole)
            means = [_along_channels(part / ctx.count, wide) for part in whole]
            slope = invstd if weight is None else invstd * weight
            to_images = (wide - means[0] - standardised * means[1]) * _along_channels(slope, wide)
            to_images = to_images.to(images.dtype)
        return to_images, to_weight, to_bias, None, None, None


def _standardised(images: Tensor, mean: Tensor, invstd: Tensor) -> Tensor:
    """(x − mean) · invstd, in float32 at least."""
    wide = images.to(_wide(images))
    return (wide - _along_channels(mean, wide)) * _along_channels(invstd, wide)


def _wide(images: Tensor) -> torch.dtype:
    return torch.promote_types(images.dtype, torch.float32)


def _all_but_channels(images: Tensor) -> list[int]:
    return [axis for axis in range(images.dim()) if axis != 1]


def _along_channels(values: Tensor, images: Tensor) -> Tensor:
    """(C,) → (1, C, 1, …) of the images' type."""
    return values.to(images.dtype).view(1, -1, *[1] * (images.dim() - 2))
