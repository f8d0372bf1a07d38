"""Batches of a run: which images, in which order, augmented how, all determined by (seed, step)."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from dropclass_deploy.core.errors import DataError, DropclassError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.training.batches.augment import Augment, resize_pair
from dropclass_deploy.training.recipe import TrainSection

Pair = tuple[Tensor, Tensor]
Batch = Pair | DropclassError
"""An error of ours comes out of the loader like a batch, to be raised by whoever takes it: one that is raised in a worker
process arrives with that process's traceback for a message."""


class StepBatches(Sampler[list[tuple[int, int]]]):
    """Batches from step ``start`` to the last; each item is (index in the data, number of the sample in the run).

    The run is one stream of samples: pass after pass over the data, each in its own random order. A batch may span two
    passes, so no image is dropped at a pass's end, and a step's batch is known without playing the steps before it.
    """

    def __init__(self, num_items: int, batch_size: int, steps: int, seed: int, start: int = 0) -> None:
        self.num_items = num_items
        self.batch_size = batch_size
        self.drop_last = True
        self.steps = steps
        self.seed = seed
        self.start = start
        self._kept: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.steps):
            yield self.items(step)

    def items(self, step: int) -> list[tuple[int, int]]:
        """The batch of one step."""
        batch = []
        for number in range(step * self.batch_size, (step + 1) * self.batch_size):
            epoch, position = divmod(number, self.num_items)
            batch.append((self._order(epoch)[position], number))
        return batch

    def _order(self, epoch: int) -> list[int]:
        """The order of one pass; the last one asked for is kept."""
        if self._kept[0] != epoch:
            generator = generator_for(self.seed, 1, epoch)
            self._kept = (epoch, torch.randperm(self.num_items, generator=generator).tolist())
        return self._kept[1]


def generator_for(seed: int, stream: int, number: int) -> torch.Generator:
    """A CPU generator for one purpose (``stream``) and one step, sample or pass (``number``)."""
    return torch.Generator().manual_seed(key_for(seed, stream, number))


def key_for(seed: int, stream: int, number: int) -> int:
    """The seed of one purpose and number, in [0, 2⁶³).

    A multiply-and-mix (splitmix64's constants) keeps neighbouring numbers from sharing generator state.
    """
    state = (seed * 0x9E3779B97F4A7C15 + stream * 0xBF58476D1CE4E5B9 + number * 0x94D049BB133111EB) & (2**64 - 1)
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (state ^ (state >> 31)) & (2**63 - 1)


class TrainingImages(TorchDataset[Batch]):
    """Augmented pairs of a data set: uint8 image (3, h, w) and uint8 mask (h, w)."""

    def __init__(self, dataset: Dataset, augment: Augment, preprocess: Preprocess, seed: int) -> None:
        self.dataset = dataset
        self.augment = augment
        self.size = preprocess.size
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: tuple[int, int]) -> Batch:
        try:
            return self._pair(*item)
        except DropclassError as error:
            return error

    def _pair(self, index: int, number: int) -> Pair:
        image = torch.from_numpy(self.dataset.image(index).copy()).permute(2, 0, 1)
        mask = torch.from_numpy(self.dataset.mask(index).copy())
        if self.size is not None:
            image, mask = resize_pair(image, mask, self.size)
        return self.augment(image, mask, generator_for(self.seed, 2, number))


def training_loader(
    dataset: Dataset, train: TrainSection, preprocess: Preprocess, *, start: int
) -> tuple[DataLoader[Batch], StepBatches]:
    """Loader of (images uint8 (N, 3, h, w), labels uint8 (N, h, w)) for steps ``start`` … ``train.steps``, and its sampler.

    Raises:
        DataError: when the split is empty.
    """
    if len(dataset) == 0:
        raise DataError(f"split {dataset.split!r} of {dataset.spec} holds no image", expected="at least one")
    augment = Augment.from_recipe(train, dataset.classes.ignore_index, preprocess.mean)
    images = TrainingImages(dataset, augment, preprocess, train.seed)
    batches = StepBatches(len(dataset), train.batch_size, train.steps, train.seed, start)
    loader = DataLoader(
        images,
        batch_sampler=batches,
        num_workers=train.workers,
        collate_fn=collate,
        worker_init_fn=partial(_leave_signals_to_the_parent, closing=_closing_flag()) if train.workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    return loader, batches


def _leave_signals_to_the_parent(_worker: int, *, closing: Any) -> None:
    """A signal to the whole process group must not kill the workers: the parent still finishes its step and saves.

    Only when the parent itself goes does it mean them: Python then ends its children by SIGTERM and waits for them.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        if closing.value:
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)


def _closing_flag() -> Any:
    """A flag in shared memory that goes up when this process ends."""
    flag = multiprocessing.RawValue("b", 0)
    atexit.register(setattr, flag, "value", 1)
    return flag


def collate(items: list[Batch]) -> Batch:
    """Stack pairs; the first error among them, or one for images that differ in size, instead."""
    failed = next((item for item in items if isinstance(item, DropclassError)), None)
    if failed is not None:
        return failed
    pairs = [item for item in items if not isinstance(item, DropclassError)]
    sizes = {tuple(image.shape[-2:]) for image, _ in pairs}
    if len(sizes) > 1:
        return DataError(
            f"one batch holds images of sizes {sorted(sizes)}",
            expected="one size",
            remedy="set train.crop: [height, width], or preprocess.size",
        )
    return torch.stack([image for image, _ in pairs]), torch.stack([mask for _, mask in pairs])
