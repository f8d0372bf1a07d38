"""What a recipe's components make of a method's loss: of the pixels' cross-entropy, and of the terms beside it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from dropclass_deploy.core.classes import IGNORE_INDEX, MAX_CLASSES, ClassTable
from dropclass_deploy.core.errors import ModelError, RecipeError
from dropclass_deploy.training.dropclass import Classifier
from dropclass_deploy.training.losses import Resize, class_table, counted_pixels, relabelled, resize_logits
from dropclass_deploy.training.methods.method import StepContext, StepLoss
from dropclass_deploy.training.methods.pixel_loss import PixelLoss
from dropclass_deploy.training.methods.terms import terms_of
from dropclass_deploy.training.methods.view import View
from dropclass_deploy.training.recipe import ComponentOptions
from dropclass_deploy.training.recipe.loss_options import IGNORE


class Objective:
    """The loss of the plain network.

    Attributes:
        pixels: of one head's pixels.
        terms: beside it, each with its weight.
        beside: from features to the logit of pixels without a label, or None; trained, and never deployed.

    Args:
        options: of the recipe's components.
        classifier: of the network, when there is one to be found and training can stop there.
        classes: of the data; None: without their names.

    Raises:
        RecipeError: for a class that the data do not have.
        ModelError: for a component that has to see the classifier, of a network in which training cannot.
    """

    def __init__(
        self, options: ComponentOptions, classifier: Classifier | None = None, classes: ClassTable | None = None
    ) -> None:
        self.pixels = PixelLoss(options)
        self.beside: nn.Conv2d | None = None
        uncertain = options.uncertainty
        background = None
        if uncertain is not None:
            seen = _seen_classifier(classifier)
            background = _output(uncertain.background, seen.num_classes, classes)
            if uncertain.background == IGNORE:
                _check_room(seen.num_classes, classes)
                self.beside = nn.Conv2d(seen.channels, 1, 1)
        self.terms = terms_of(options, background)

    @property
    def changes_pixels(self) -> bool:
        """Whether the cross-entropy of the plain network is another than usual."""
        return bool(self.pixels.names) or self.beside is not None

    def view(self, seen: View) -> View:
        """What a pass shows, with the output for pixels without a label where there is one."""
        if self.beside is None or seen.features is None:
            return seen
        # A network that resizes its logits to another size than the labels' has done so by now.
        beside = resize_logits(self.beside(seen.features), seen.head.logits, align_corners=bool(seen.align_corners))
        return replace(seen, beside=beside)

    def cross_entropy(self, view: View, context: StepContext) -> Tensor:
        """Mean loss of the plain network's pixels, a scalar."""
        if view.beside is None:
            return self.pixels.mean(view.head, view.labels, context.class_weight, context)
        classes = view.head.logits.shape[1]
        table = _with_one(class_table(view.head.logits, context.class_weight))
        labels = relabelled(view.labels, context.ignore_index, classes)
        head = Resize(view.outputs, view.head.align_corners)
        return self.pixels.mean(head, labels, table, context, classes)

    def divisor(self, labels: Tensor, num_classes: int, context: StepContext) -> Tensor:
        """What that mean divides by, float64: see ``PixelLoss.divisor``."""
        if self.beside is None:
            return self.branch_divisor(labels, num_classes, context)
        labels = relabelled(labels, context.ignore_index, num_classes)
        table = _with_one(_table(labels, num_classes, context))
        return self.pixels.divisor(labels, table, context.ignore_index, num_classes)

    def branch_divisor(self, labels: Tensor, num_classes: int, context: StepContext) -> Tensor:
        """The same of a head without the output beside the classes."""
        return self.pixels.divisor(labels, _table(labels, num_classes, context), context.ignore_index)

    def named(self, value: Tensor) -> dict[str, Tensor]:
        """The cross-entropy's value under the name of every component that changes it."""
        return dict.fromkeys(self.pixels.names, value.detach())

    def step_loss(
        self, own: Tensor, named: dict[str, Tensor], view: View, context: StepContext, shares: Tensor | None
    ) -> StepLoss:
        """A method's own loss and, beside it, the weighted sum of the terms.

        They are means over these images; in a step of several parts each part counts by its labelled pixels.

        Args:
            own: the method's, a scalar.
            named: its terms by name, detached.
            view: what the terms look at.
            context: of the step.
            shares: of the method's terms, and last of the ones here (``extra_weights``); None: the step is one part.
        """
        beside, values = own.new_zeros((), dtype=torch.float32), {}
        for term in self.terms:
            value = term.loss(view, context.ignore_index)
            value = value if shares is None else value * shares[-1].to(value.dtype)
            beside = beside + term.weight * value
            values[term.name] = value.detach()
        total = own + beside if self.terms else own
        return StepLoss(total, named | values, context.dropped)

    def extra_weights(self, labels: Tensor, ignore_index: int) -> list[Tensor]:
        """What the terms' means divide by in a step of several parts: one figure for all, none without terms."""
        return [counted_pixels(labels, ignore_index)] if self.terms else []


def _seen_classifier(classifier: Classifier | None) -> Classifier:
    reason = "it cannot be found" if classifier is None else classifier.tail
    if classifier is not None and reason is None and not classifier.linear:
        reason = "it is a head of several modules"
    if classifier is None or reason is not None:
        raise ModelError(
            f"uncertainty needs the input of the network's classifier, and {reason}",
            expected="a network whose logits come from a last convolution, resized by nothing but a bilinear resize",
            remedy="leave uncertainty out of method.with, or name the classifier with model.classifier",
        )
    return classifier


def _check_room(num_classes: int, classes: ClassTable | None) -> None:
    taken = IGNORE_INDEX if classes is None else classes.ignore_index
    if num_classes in (taken, MAX_CLASSES):
        raise RecipeError(
            f"the data have {num_classes} classes",
            expected=f"at most {MAX_CLASSES - 1} with uncertainty.background: {IGNORE}, whose pixels take the next id",
        )
    if classes is not None and IGNORE in classes.names:
        raise RecipeError(
            f"uncertainty.background {IGNORE!r} means the pixels without a label, and the data have a class of this name",
            remedy="rename the class in the data",
        )


def _output(name: str | None, num_classes: int, classes: ClassTable | None) -> int | None:
    """The output of a background: a class's, or the one beside all classes."""
    if name is None:
        return None
    if name == IGNORE:
        return num_classes
    if classes is None or name not in classes.names:
        known = "" if classes is None else f": {', '.join(classes.names)}"
        raise RecipeError(
            f"method.options.uncertainty.background is {name!r}",
            expected=f'a class of the data{known}; or "{IGNORE}", or null',
        )
    return classes.names.index(name)


def _table(labels: Tensor, num_classes: int, context: StepContext) -> Tensor:
    """The weight of every class, (C,): ones when none is given."""
    table = context.class_weight
    return torch.ones(num_classes, device=labels.device) if table is None else table


def _with_one(table: Tensor) -> Tensor:
    """Class weights (C,) and, for pixels without a label, 1: the weight of a class of median frequency."""
    return torch.cat([table, table.new_ones(1)])
