"""Components of a recipe's loss, small enough to compute by hand, and a method around a tiny network."""

from __future__ import annotations

from typing import Any

import torch
from small_network import SmallNetwork
from torch import Tensor

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.training.methods import Method, StepContext, build_method
from dropclass_deploy.training.recipe import MethodSection

C = 4
NAMES = ("road", "car", "pole", "sign")
FREQUENCY = torch.tensor([0.7, 0.2, 0.09, 0.01])
WEIGHT = torch.tensor([0.5, 1.0, 2.0, 4.0])
PIXELS: dict[str, dict[str, Any]] = {
    "ohem": {"threshold": 0.2, "min_kept": 0.25},
    "focal": {"gamma": 2},
    "boundary": {"weight": 3, "width": 1},
    "logit_adjustment": {"tau": 1},
    "blv": {"sigma": 4},
}
BESIDE: dict[str, dict[str, Any]] = {
    "dice": {},
    "lovasz": {},
    "template": {"push": 0.5},
    "uncertainty": {"background": "road"},
}
LOSSES = {**PIXELS, **BESIDE}


def section(*components: str, name: str = "ce", **options: Any) -> MethodSection:
    """A method with these components, at the options of the cases or those given."""
    known = {key: LOSSES.get(key, {}) for key in components}
    return MethodSection.model_validate({"name": name, "with": list(components), "options": {**known, **options}})


def method(asked: MethodSection, seed: int = 5) -> Method:
    """Around a tiny network, in training mode."""
    colours = tuple((20 * index, 0, 0) for index in range(C))
    made = build_method(SmallNetwork(C, seed), asked, classes=ClassTable(names=NAMES, palette=colours))
    made.module.train()
    return made


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 12, 10, generator=torch.Generator().manual_seed(1))


def labels(count: int = 4) -> Tensor:
    """Blocks of classes, a ninth ignored."""
    small = torch.randint(0, C, (count, 4, 4), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    found = small.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, :12, :10].clone()
    found[:, ::3, ::3] = 255
    return found


def context(dropped: int | None = None, progress: float = 0.5, **changes: Any) -> StepContext:
    return StepContext(
        **{
            "step": 3,
            "progress": progress,
            "seed": 0,
            "ignore_index": 255,
            "class_weight": WEIGHT,
            "dropped": dropped,
            "class_log_frequency": FREQUENCY.log(),
            **changes,
        }
    )
