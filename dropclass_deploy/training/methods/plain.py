"""Cross-entropy alone, or with what a recipe's components add to it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from dropclass_deploy.models.outputs import logits_of
from dropclass_deploy.training.dropclass import Classifier
from dropclass_deploy.training.dropclass.tap import ClassifierTap
from dropclass_deploy.training.losses import Resize, check_labels, resize_left, without_label
from dropclass_deploy.training.methods.draw import drawn_class
from dropclass_deploy.training.methods.method import Method, StepContext, StepLoss, told_path
from dropclass_deploy.training.methods.objective import Objective
from dropclass_deploy.training.methods.view import View
from dropclass_deploy.training.recipe import MethodSection


class CrossEntropy(Method):
    """Plain cross-entropy; on a model with the extra block (``insert_block``) it is the control "CE + block".

    Args:
        model: the network.
        section: of the recipe.
        num_classes: C.
        objective: what the recipe's components make of the loss.
        classifier: the network's; None when it has none that can be found: the loss then takes the logits that the
            network returns.
    """

    def __init__(
        self,
        model: nn.Module,
        section: MethodSection,
        num_classes: int,
        objective: Objective,
        classifier: Classifier | None = None,
    ) -> None:
        super().__init__(model)
        self.section, self.num_classes, self.objective, self.classifier = section, num_classes, objective, classifier
        if classifier is not None and classifier.tail is None:
            self.tap = ClassifierTap(model, classifier.path, in_place=not classifier.linear)
        self.train_beside(objective.beside)

    def loss_path(self) -> str:
        """See ``Method.loss_path``."""
        return told_path(self.classifier)

    def draw(self, labels: Tensor, context: StepContext) -> int | None:
        """The class whose labels are ignored in this step, for the component ``ignore_label``."""
        if self.section.options.ignore_label is None:
            return None
        return drawn_class(self.section, labels, self.num_classes, context)

    def loss_weights(self, labels: Tensor, context: StepContext) -> Tensor:
        """(1,) of the cross-entropy, or (2,): of the terms beside it, too."""
        labels = without_label(labels, context.dropped, context.ignore_index)
        weights = [self.objective.divisor(labels, self.num_classes, context)]
        return torch.stack(weights + self.objective.extra_weights(labels, context.ignore_index))

    def loss(self, images: Tensor, labels: Tensor, context: StepContext, shares: Tensor | None = None) -> StepLoss:
        """Class-weighted cross-entropy, and the terms beside it."""
        view = self._view(images, labels)
        check_labels(labels, view.head.logits.shape[1], context.ignore_index)
        view = self.objective.view(replace(view, labels=without_label(labels, context.dropped, context.ignore_index)))
        ce = self.objective.cross_entropy(view, context)
        if shares is not None:
            ce = ce * shares[0].to(ce.dtype)
        terms = {"ce": ce.detach(), **self.objective.named(ce)}
        return self.objective.step_loss(ce, terms, view, context, shares)

    def branch(self) -> nn.Module | None:
        """The output for pixels without a label, if there is one."""
        return self.objective.beside

    def _view(self, images: Tensor, labels: Tensor) -> View:
        if self.tap is None or self.classifier is None:
            return View(Resize(logits_of(self.model(images))), labels)
        seen = self.tap.run_short(images)
        head = resize_left(seen.logits, seen.size, self.classifier.align_corners, labels)
        classify = self.model.get_submodule(self.classifier.path)
        return View(head, labels, seen.features, classify, self.classifier.align_corners)
