"""Batches of a run: which images, in which order, augmented how, all determined by (seed, step)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from dropclass_deploy.core.errors import DataError, DropclassError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.training.batches.augment import Augment, resize_pair
from dropclass_deploy.training.batches.class_mix import ClassMix
from dropclass_deploy.training.batches.curriculum import Curriculum
from dropclass_deploy.training.batches.draws import generator_for
from dropclass_deploy.training.batches.focus import Focus
from dropclass_deploy.training.batches.order import Order, Passes
from dropclass_deploy.training.batches.photometry import Change, change_colours
from dropclass_deploy.training.batches.windows import Size
from dropclass_deploy.training.batches.workers import closing_flag, leave_signals_to_the_parent
from dropclass_deploy.training.recipe import TrainSection

Changes = tuple[Change, ...]
Batch = tuple[Tensor, Tensor, Changes] | DropclassError
"""Image and mask, of one sample or of a step, and the changes of colour that are left to whoever takes them (or ()).

An error of ours comes out of the loader like a batch, to be raised by whoever takes it: one that is raised in a worker
process arrives with that process's traceback for a message.
"""


class StepBatches(Sampler[list[tuple[int, int]]]):
    """Batches from step ``start`` to the last; each item is (index in the data, number of the sample in the run).

    The run is one stream of samples, so a step's batch is known without playing the steps before it.
    """

    def __init__(self, order: Order, batch_size: int, steps: int, start: int = 0) -> None:
        self.order = order
        self.batch_size = batch_size
        self.drop_last = True
        self.steps = steps
        self.start = start

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.steps):
            yield self.items(step)

    def items(self, step: int) -> list[tuple[int, int]]:
        """The batch of one step."""
        numbers = range(step * self.batch_size, (step + 1) * self.batch_size)
        return [(self.order.index(number), number) for number in numbers]


class TrainingImages(TorchDataset[Batch]):
    """Augmented pairs of a data set: uint8 image (3, h, w) and uint8 mask (h, w).

    With ``defer_colours`` the change of colours is drawn and handed over instead of made. With ``mix`` a second image, in
    an augmentation of its own, shows where classes left the first; the mixed image gets one change of colours. ``order`` says
    what the crops have to show, ``curriculum`` their size.
    """

    def __init__(
        self,
        dataset: Dataset,
        augment: Augment,
        preprocess: Preprocess,
        train: TrainSection,
        *,
        order: Order,
        curriculum: Curriculum | None = None,
        mix: ClassMix | None = None,
        defer_colours: bool = False,
    ) -> None:
        self.dataset = dataset
        self.augment = augment
        self.size = preprocess.size
        self.seed = train.seed
        self.batch_size = train.batch_size
        self.order = order
        self.curriculum = curriculum
        self.mix = mix
        self.defer_colours = defer_colours

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: tuple[int, int]) -> Batch:
        try:
            return self._sample(*item)
        except DropclassError as error:
            return error

    def _sample(self, index: int, number: int) -> tuple[Tensor, Tensor, Changes]:
        crop = None if self.curriculum is None else self.curriculum.at(number // self.batch_size)
        image, mask, change = self._cut(index, generator_for(self.seed, 2, number), crop, self.order.focus(number))
        if self.mix is not None:
            image, mask = self._mixed(self.mix, image, mask, index, number, crop)
        if self.defer_colours:
            return image, mask, (change,)
        return change_colours(image, self.augment.photometric, change), mask, ()

    def _cut(
        self, index: int, generator: torch.Generator, crop: Size | None, focus: Focus | None = None
    ) -> tuple[Tensor, Tensor, Change]:
        """One pair, augmented in all but its colours."""
        image = torch.from_numpy(self.dataset.image(index).copy()).permute(2, 0, 1)
        mask = torch.from_numpy(self.dataset.mask(index).copy())
        if self.size is not None:
            image, mask = resize_pair(image, mask, self.size)
        return self.augment.geometry(image, mask, generator, crop=crop, focus=focus)

    def _mixed(
        self, mix: ClassMix, image: Tensor, mask: Tensor, index: int, number: int, crop: Size | None
    ) -> tuple[Tensor, Tensor]:
        """The pair with classes gone, where this sample is one that is mixed."""
        generator = mix.generator(self.seed, number)
        donor = mix.donor(index, len(self.dataset), generator)
        if donor is None:
            return image, mask
        other, other_mask, _ = self._cut(donor, generator, crop)
        return mix(image, mask, other, other_mask, generator)


def training_loader(
    dataset: Dataset,
    train: TrainSection,
    preprocess: Preprocess,
    *,
    start: int,
    order: Order | None = None,
    curriculum: Curriculum | None = None,
    mix: ClassMix | None = None,
    workers: int = 0,
    pinned: bool = False,
    defer_colours: bool = False,
) -> tuple[DataLoader[Batch], StepBatches]:
    """Loader of images uint8 (N, 3, h, w), labels uint8 (N, h, w) and changes for steps ``start`` …, and its sampler.

    Args:
        dataset: the training split.
        train: the recipe's section.
        preprocess: of the network.
        start: the first step.
        order: which images, and what their crops have to show; None for pass after pass.
        curriculum: the size of the crops by step; None for ``train.crop``.
        mix: lets classes leave the images, or None.
        workers: processes that work ahead; the batches are the same whatever their number.
        pinned: batches lie in memory that a GPU copies from while the CPU goes on.
        defer_colours: leave the changes of colour to ``photometry.change_batch``.

    Raises:
        DataError: when the split is empty.
    """
    if len(dataset) == 0:
        raise DataError(f"split {dataset.split!r} of {dataset.spec} holds no image", expected="at least one")
    augment = Augment.from_recipe(train, dataset.classes.ignore_index, preprocess.mean)
    order = order or Passes(range(len(dataset)), train.seed)
    images = TrainingImages(
        dataset,
        augment,
        preprocess,
        train,
        order=order,
        curriculum=curriculum,
        mix=mix,
        defer_colours=defer_colours,
    )
    batches = StepBatches(order, train.batch_size, train.steps, start)
    loader = DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=partial(leave_signals_to_the_parent, closing=closing_flag()) if workers else None,
        pin_memory=pinned,
    )
    return loader, batches


def collate(items: list[Batch]) -> Batch:
    """Stack pairs; the first error among them, or one for images that differ in size, instead."""
    failed = next((item for item in items if isinstance(item, DropclassError)), None)
    if failed is not None:
        return failed
    samples = [item for item in items if not isinstance(item, DropclassError)]
    images, masks, changes = zip(*samples, strict=True)
    sizes = {tuple(image.shape[-2:]) for image in images}
    if len(sizes) > 1:
        return DataError(
            f"one batch holds images of sizes {sorted(sizes)}",
            expected="one size",
            remedy="set train.crop: [height, width], or preprocess.size",
        )
    return torch.stack(images), torch.stack(masks), tuple(change for one in changes for change in one)
