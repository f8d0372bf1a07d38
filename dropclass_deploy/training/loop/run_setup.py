"""What a run is made of: data, network, method; whatever is wrong with them shows before the first step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dropclass_deploy.core.errors import ModelError, RecipeError, first_line
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.models import build_model, default_preprocess
from dropclass_deploy.training.batches.curriculum import Curriculum
from dropclass_deploy.training.dropclass.probe import output_channels
from dropclass_deploy.training.methods import Method, build_method
from dropclass_deploy.training.recipe import Recipe
from dropclass_deploy.training.runs.run import USER_MODEL
from dropclass_deploy.training.task import Task, open_splits, study


@dataclass(frozen=True)
class Setup:
    """What a run is made of before the accelerator sees it."""

    folder: Path
    recipe: Recipe
    task: Task
    method: Method
    preprocess: Preprocess
    built: dict[str, Any]


def set_up(
    recipe: Recipe, folder: Path, model: nn.Module | None, preprocess: Preprocess | None, reporter: Reporter
) -> Setup:
    """Open the data, build the network and the method: whatever is wrong with them shows here."""
    if model is None and recipe.model is None:
        raise RecipeError("the recipe names no model", expected="model.name, or train(…, model=network)")
    torch.manual_seed(recipe.train.seed)
    train, val = open_splits(recipe)
    section = recipe.model
    classifier = None if section is None else section.classifier
    # The network before the pixels are counted: a wrong name shows at once.
    if model is not None:
        network, default = model, preprocess or Preprocess()
        built: dict[str, Any] = {"name": USER_MODEL, "options": {}, "weights": None}
    elif section is not None:
        network = build_model(section.name, len(train.classes), section.weights, **section.options)
        default = default_preprocess(section.name, section.options.get("encoder"))
        built = {"name": section.name, "options": section.options, "weights": section.weights}
    task = study(recipe, train, val, reporter)
    spec = recipe.preprocess.resolve(default).model_copy(update={"value_range": task.train.value_range})
    size = _input_size(recipe, spec, task)
    _check_class_count(network, task, recipe, size)
    _check_curriculum(network, recipe, size)
    method = build_method(network, recipe.method, classifier, size, task.classes)
    reporter.note(method.loss_path())
    if recipe.train.compile:
        method.check_compilable()
    built |= {"classifier": classifier, "probe_size": list(size)}
    return Setup(folder, recipe, task, method, spec, built)


def _input_size(recipe: Recipe, preprocess: Preprocess, task: Task) -> tuple[int, int]:
    """(height, width) of the network's input in this run."""
    if recipe.train.crop is not None:
        return recipe.train.crop
    height, width = preprocess.size or task.train.image(0).shape[:2]
    return height, width


def _check_class_count(network: nn.Module, task: Task, recipe: Recipe, size: tuple[int, int]) -> None:
    """Run the network once on an image's size, so that a wrong class count shows before the first step."""
    count = output_channels(network, size)
    if count != len(task.classes):
        raise ModelError(
            f"the model gives logits of {count} classes",
            expected=f"{len(task.classes)}, as {recipe.data} has",
            remedy="build the model with that number of classes, or mend the class table",
        )


def _check_curriculum(network: nn.Module, recipe: Recipe, size: tuple[int, int]) -> None:
    """Run the network once on each size of the curriculum: a phase that it cannot take would end the run half-way."""
    crops = Curriculum.from_recipe(recipe.method.options.curriculum, recipe.train.steps, size)
    for number, (height, width) in enumerate(crops.sizes if crops is not None else (), start=1):
        try:
            output_channels(network, (height, width))
        except ModelError as error:
            raise RecipeError(
                f"phase {number} of method.options.curriculum has crops of {height}×{width}, which the network cannot take "
                f"({first_line(error)})",
                expected=f"fractions of {size[0]}×{size[1]} that give sizes it can",
            ) from error


def resume_hint(setup: Setup) -> str:
    """How to go on."""
    folder = setup.folder
    if setup.built["name"] == USER_MODEL:
        return f"the state is saved; go on with: train(recipe, {str(folder)!r}, model=…, resume=True)"
    return f"the state is saved; go on with: dropclass train {folder} --resume"
