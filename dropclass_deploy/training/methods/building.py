"""The method that a recipe names, around a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.training.dropclass import Classifier, find_classifier
from dropclass_deploy.training.dropclass.probe import output_channels
from dropclass_deploy.training.methods.class_drop import DropClassMethod
from dropclass_deploy.training.methods.extra_block import insert_block
from dropclass_deploy.training.methods.method import Method
from dropclass_deploy.training.methods.objective import Objective
from dropclass_deploy.training.methods.plain import CrossEntropy
from dropclass_deploy.training.recipe import MethodSection


def build_method(
    model: nn.Module,
    section: MethodSection,
    classifier: str | None = None,
    size: tuple[int, int] = (64, 64),
    classes: ClassTable | None = None,
) -> Method:
    """The method a recipe names, around ``model`` (which "ce+block" changes: it gets the block).

    Args:
        model: the network.
        section: of the recipe.
        classifier: path of its classifier, when it cannot be found.
        size: (height, width) that the model can be run on, for models that refuse the probe's 64×64.
        classes: of the data, for components that name one.

    Raises:
        ModelError: when the method, or a component, needs the classifier and it cannot be found.
        RecipeError: for a class that the data do not have.
    """
    if section.name == "dropclass":
        return DropClassMethod(model, section, classifier, probe_example(model, size), classes)
    example = probe_example(model, size)
    if section.name == "ce+block":
        model = insert_block(model, classifier, example)
        classifier = None
    found = _findable(model, classifier, example)
    objective = Objective(section.options, found, classes)
    return CrossEntropy(model, section, _class_count(model, found, classes, size), objective, found)


def _class_count(
    model: nn.Module, classifier: Classifier | None, classes: ClassTable | None, size: tuple[int, int]
) -> int:
    if classifier is not None:
        return classifier.num_classes
    return output_channels(model, size) if classes is None else len(classes)


def _findable(model: nn.Module, path: str | None, example: Tensor | None) -> Classifier | None:
    """The classifier, when there is one to be found: plain cross-entropy has no need of it."""
    try:
        return find_classifier(model, path, example)
    except ModelError:
        return None


def probe_example(model: nn.Module, size: tuple[int, int]) -> Tensor | None:
    """None when the model takes the probe's own noise, else noise of a size that the run's images have."""
    try:
        output_channels(model, (64, 64))
    except ModelError:
        reference = next(model.parameters(), torch.zeros(()))
        noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        return noise.to(device=reference.device, dtype=reference.dtype)
    return None
