"""Every component of a recipe through a whole run: its term is journalled, it stops and goes on, what ships is plain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from component_cases import LOSSES
from safetensors.torch import load_file
from test_trainer import Teller, recipe, records

from dropclass_deploy.core.errors import TrainingInterruptedError
from dropclass_deploy.training import load_run, train
from dropclass_deploy.training.recipe import Recipe
from dropclass_deploy.training.recipe.components import COMPONENTS

CHOSEN = ("uncertainty",)
"""It draws noise, and trains an output that is not deployed; the others of the loss hold no state."""
OPTIONS: dict[str, dict[str, Any]] = {**LOSSES, "uncertainty": {"background": "ignore"}}


def asked(component: str, name: str = "ce", **changes: Any) -> Recipe:
    method = {"name": name, "with": [component], "options": {component: OPTIONS.get(component, {})}}
    return recipe(method=method, **changes)


def each(names: tuple[str, ...]) -> list[Any]:
    """The chosen ones, and the others for whoever has the time."""
    return [name if name in CHOSEN else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("component", each(COMPONENTS))
def test_a_component_goes_through_a_run(component: str, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(asked(component), whole)
    with pytest.raises(TrainingInterruptedError, match=r"after step 3 of 6"):
        train(asked(component), stopped, reporter=Teller(step=3))
    torch.manual_seed(999)
    train(asked(component), stopped, resume=True)
    for name in ("model.safetensors", "branch.safetensors"):
        assert (whole / name).is_file() == (stopped / name).is_file()
        if (whole / name).is_file():
            before, after = load_file(whole / name), load_file(stopped / name)
            assert all(torch.equal(before[key], after[key]) for key in before)
    if component in LOSSES:
        for line in records(whole, "train"):
            assert line[component] > 0
    plain = load_file(train(recipe(method={"name": "ce", "with": []}), tmp_path / "plain") / "model.safetensors")
    found = load_file(whole / "model.safetensors")
    assert found.keys() == plain.keys()
    assert load_run(whole).model is not None
    if component != "ignore_label":  # in six steps it may draw nothing
        assert any(not torch.equal(found[key], plain[key]) for key in found)


@pytest.mark.parametrize("component", each(tuple(LOSSES)))
def test_parts_of_a_step_and_dropclass_take_it(component: str, tmp_path: Path) -> None:
    run = train(asked(component, "dropclass", train__accumulate=2, train__steps=2, train__batch_size=4), tmp_path / "r")
    for line in records(run, "train"):
        assert line[component] > 0
        assert {"ce", "ce_drop", "suppression"} <= line.keys()
    loaded = load_run(run)
    assert loaded.folded is not None
