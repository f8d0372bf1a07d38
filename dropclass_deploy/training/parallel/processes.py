"""The processes that train together, as far as sums over them go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dropclass_deploy.core.errors import RecipeError
from dropclass_deploy.training.recipe import TrainSection

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Processes:
    """This process among its like.

    Attributes:
        rank: of this one, from 0; number 0 writes the files.
        count: of all.
        device: of this one.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def of(cls, accelerator: Accelerator) -> Processes:
        """Those that Accelerate connected."""
        return cls(accelerator.process_index, accelerator.num_processes, torch.device(accelerator.device))

    def part(self, size: int) -> range:
        """This process's part of ``size`` things: each thing belongs to one process, none is counted twice."""
        return range(self.rank, size, self.count)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, a new tensor on the values' device."""
        if self.count == 1:
            return values
        shared = values.detach().to(self.device, copy=True)
        torch.distributed.all_reduce(shared)
        return shared.to(values.device)

    def total_counts(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The sum of integer counts over all processes."""
        summed: npt.NDArray[np.int64] = self.total(torch.from_numpy(counts)).numpy()
        return summed

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on any of them."""
        return bool(self.total(torch.tensor(int(flag))))

    def gathered(self, thing: Thing) -> list[Thing]:
        """One (small, picklable) thing of each process, in the order of their ranks."""
        if self.count == 1:
            return [thing]
        things: list[Thing | None] = [None] * self.count
        torch.distributed.all_gather_object(things, thing)
        return cast("list[Thing]", things)

    def of_first(self, thing: Thing) -> Thing:
        """The (small, picklable) thing that number 0 has."""
        return self.gathered(thing)[0]

    @torch.no_grad()
    def share_buffers(self, module: nn.Module) -> None:
        """Give all of them the buffers of number 0, in place: BatchNorm's statistics of one process's images differ."""
        if self.count > 1:
            for buffer in module.buffers():
                torch.distributed.broadcast(buffer, src=0)


def check_batch(train: TrainSection, processes: Processes) -> None:
    """Refuse a batch that cannot be shared equally.

    Raises:
        RecipeError: naming sizes that fit.
    """
    parts = processes.count * train.accumulate
    if train.batch_size % parts:
        raise RecipeError(
            f"train.batch_size {train.batch_size} (the images of one step over all processes) cannot be shared by "
            f"{processes.count} processes in {train.accumulate} part{'s' if train.accumulate > 1 else ''} each",
            expected=f"a multiple of {parts}",
            remedy=f"for example train.batch_size={-(-train.batch_size // parts) * parts}",
        )
