"""Which class a step drops."""

from __future__ import annotations

import torch
from torch import Tensor

from dropclass_deploy.training.batches.draws import generator_for
from dropclass_deploy.training.dropclass import linear, sample_dropped
from dropclass_deploy.training.methods.method import StepContext
from dropclass_deploy.training.recipe import MethodSection


def drawn_class(section: MethodSection, labels: Tensor, num_classes: int, context: StepContext) -> int | None:
    """z, or None; see ``sample_dropped``.

    The generator is one of (seed, step): every process draws the same class, and a resumed run the same as an unbroken one.
    """
    among = present_classes(labels, num_classes) if section.drop_among == "batch" else None
    generator = generator_for(context.seed, 3, context.step)
    return sample_dropped(num_classes, linear(context.progress, section.drop_max), generator, among=among)


def present_classes(labels: Tensor, num_classes: int) -> Tensor:
    """Ids of the classes in the labels of *all* processes, so that all draw the same z."""
    ids = labels.long().flatten()
    present = torch.bincount(ids[(ids >= 0) & (ids < num_classes)], minlength=num_classes)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(present)
    return present.nonzero().flatten()
