"""What a run's steps are fed: which images, cut how, mixed with which, by how many workers."""

from __future__ import annotations

import platform

import torch
from torch.utils.data import DataLoader

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.training.batches.class_mix import ClassMix
from dropclass_deploy.training.batches.curriculum import Curriculum
from dropclass_deploy.training.batches.loader import Batch, StepBatches, training_loader
from dropclass_deploy.training.batches.order import Order, Passes, repeated
from dropclass_deploy.training.batches.photometry import is_deferred
from dropclass_deploy.training.batches.rare_classes import RareClasses
from dropclass_deploy.training.batches.windows import Size
from dropclass_deploy.training.batches.workers import usable_cores, worker_count
from dropclass_deploy.training.loop.run_setup import Setup
from dropclass_deploy.training.parallel.processes import Processes


def workers_for(setup: Setup, processes: Processes, step: int) -> int:
    """Worker processes of this process from ``step`` on."""
    train, crops = setup.recipe.train, curriculum(setup)
    neighbours = processes.gathered(platform.node()).count(platform.node())
    return worker_count(
        train,
        setup.task.train,
        steps=train.steps - step,
        processes=neighbours,
        cores=usable_cores(),
        crop=None if crops is None else crops.largest,
    )


def loader_for(setup: Setup, device: torch.device, workers: int, step: int) -> tuple[DataLoader[Batch], StepBatches]:
    """The batches from ``step`` on, fed as suits the device.

    Raises:
        DataError: when no training image shows the class that is to be seen more often.
    """
    train = setup.recipe.train
    return training_loader(
        setup.task.train,
        train,
        setup.preprocess,
        start=step,
        order=image_order(setup),
        curriculum=curriculum(setup),
        mix=class_mix(setup),
        workers=workers,
        pinned=device.type == "cuda",
        defer_colours=is_deferred(train, device, largest_input(setup)),
    )


def class_mix(setup: Setup) -> ClassMix | None:
    """What lets classes leave the run's images, or None."""
    return ClassMix.from_recipe(setup.recipe.method.options.class_mix, setup.task.classes.ignore_index)


def curriculum(setup: Setup) -> Curriculum | None:
    """The crops of a run by step, or None when they are of one size."""
    options = setup.recipe.method.options.curriculum
    return Curriculum.from_recipe(options, setup.recipe.train.steps, setup.built["probe_size"])


def largest_input(setup: Setup) -> Size:
    """(height, width) of the largest images that the network is trained on."""
    crops = curriculum(setup)
    height, width = setup.built["probe_size"] if crops is None else crops.largest
    return height, width


def image_order(setup: Setup) -> Order:
    """Which images the run shows.

    Raises:
        DataError: when no training image shows the class that is to be seen more often.
    """
    options, seed = setup.recipe.method.options, setup.recipe.train.seed
    by_image = setup.task.statistics.by_image
    if options.rare_class_sampling is not None:
        return RareClasses(by_image, options.rare_class_sampling, largest_input(setup), seed)
    if options.resample is None:
        return Passes(range(len(setup.task.train)), seed)
    shows = by_image[:, setup.task.classes.names.index(options.resample.of)] > 0
    if not shows.any():
        raise DataError(
            f"no training image shows {options.resample.of!r}, the class of method.options.resample",
            expected="one at least",
        )
    return Passes(repeated(shows, options.resample.times), seed)
