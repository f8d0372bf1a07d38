"""Accelerate, set up for a run and put away after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, InitProcessGroupKwargs

from dropclass_deploy.core.errors import RecipeError
from dropclass_deploy.training.recipe import TrainSection

_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


@contextmanager
def accelerator_for(train: TrainSection) -> Iterator[Accelerator]:
    """An ``Accelerator`` for the recipe's device and precision.

    Raises:
        RecipeError: for a device or precision that this machine does not have.
    """
    device = train.device
    cuda = torch.cuda.is_available()
    if device.startswith("cuda") and not cuda:
        raise RecipeError(
            "train.device is cuda, and torch finds no CUDA device", remedy="set train.device: cpu or auto"
        )
    if train.precision == "fp16" and (device == "cpu" or not cuda):
        raise RecipeError("train.precision fp16 needs a GPU", expected="fp32 or bf16 on a CPU")
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    # Accelerate keeps its state for the whole process; a second run with another precision must not inherit it.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        # Without this, torchrun on a machine without a GPU would run unconnected copies of the same training.
        cpu=device == "cpu" or not cuda,
        mixed_precision=_PRECISION[train.precision],
        # The recipe's batch size is the whole batch, however many processes share it.
        dataloader_config=DataLoaderConfiguration(split_batches=True, non_blocking=True),
        # Number 0 may read a large data set for the first time while the others wait: longer than NCCL's ten minutes.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=2))],
        step_scheduler_with_optimizer=False,
    )
    try:
        yield accelerator
    finally:
        accelerator.free_memory()
        AcceleratorState._reset_state(reset_partial_state=True)
