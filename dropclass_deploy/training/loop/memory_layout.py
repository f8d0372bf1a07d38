"""Weights in ``torch.channels_last`` while a network trains, and as they were before afterwards.

Convolution kernels (oneDNN, cuDNN's tensor cores) work on pixels whose channels lie together; given the other layout they
reorder every input and output. Values, shapes and parameter objects stay the same, so optimiser, moving average and
checkpoints notice nothing; the sums of a convolution are made in another order, so the last bits move.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from dropclass_deploy.core.errors import first_line
from dropclass_deploy.training.dropclass.probe_run import untouched
from dropclass_deploy.training.methods import Method


@contextmanager
def channels_last(module: nn.Module, *, enabled: bool = True) -> Iterator[None]:
    """Inside the block the convolutions' weights (O, I, h, w) lie as (O, h, w, I); after it they are contiguous again.

    Only weights that need it are moved: not 1×1 or depthwise ones, which lie the same either way (and whose strides
    ``DistributedDataParallel`` would then find ambiguous), nor any that was not contiguous or is a view into other memory.
    The module may change its device inside the block.
    """
    convolutions = [child for child in module.modules() if enabled and isinstance(child, _ConvNd)]
    moved = [child.weight for child in convolutions if _gains(child.weight)]
    for parameter in moved:
        parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    try:
        yield
    finally:
        for parameter in moved:
            parameter.data = parameter.data.contiguous()


def _gains(tensor: Tensor) -> bool:
    if tensor.ndim != 4 or not tensor.is_contiguous():
        return False
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return whole and not tensor.is_contiguous(memory_format=torch.channels_last)


def refusal(method: Method, size: tuple[int, int]) -> str | None:
    """Why this network cannot be trained in channels_last, or None: some call ``view`` on what is no longer contiguous.

    One pass of the loss's network on an empty image of ``size`` (height, width); it leaves everything as it was.
    """
    reference = next(method.module.parameters())
    image = torch.zeros(1, 3, *size, device=reference.device, dtype=reference.dtype)
    try:
        with channels_last(method.module), untouched(method.module), torch.no_grad():
            method.model(image.contiguous(memory_format=torch.channels_last))
    except RuntimeError as error:
        # Anything else is not about the layout, and training will say it.
        return first_line(error, 120) if "view size is not compatible" in str(error) else None
    return None
