"""DropClass as a training method."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.training.dropclass import (
    DropClass,
    DropClassOutput,
    LossTerms,
    dropclass_loss,
    fold,
    loss_weights,
    suppression_loss,
    weighted_terms,
)
from dropclass_deploy.training.losses import check_labels, resize_left, without_label
from dropclass_deploy.training.methods.draw import drawn_class
from dropclass_deploy.training.methods.method import Method, StepContext, StepLoss, told_path
from dropclass_deploy.training.methods.objective import Objective
from dropclass_deploy.training.methods.view import View
from dropclass_deploy.training.recipe import MethodSection


class DropClassMethod(Method):
    """Algorithm 1 of arXiv 2111.00531.

    What the recipe's components make of the pixels' loss holds for both paths; the terms beside it look at the plain one.
    """

    def __init__(
        self,
        model: nn.Module,
        section: MethodSection,
        classifier: str | None,
        example: Tensor | None = None,
        classes: ClassTable | None = None,
    ) -> None:
        super().__init__(model)
        self.section = section
        self.wrapper = DropClass(
            model,
            classifier,
            example=example,
            divisor=section.divisor,
            detach_importance=section.detach_importance,
            max_drop_probability=section.drop_max,
        )
        self.tap = self.wrapper.tap if self.wrapper.classifier.tail is None else None
        self.objective = Objective(section.options, self.wrapper.classifier, classes)
        self.module = self.wrapper
        self.train_beside(self.objective.beside)

    def loss_weights(self, labels: Tensor, context: StepContext) -> Tensor:
        """(3,): of CE, CE_drop and L_sup; (4,) with terms beside them."""
        classes, ignore = self.wrapper.num_classes, context.ignore_index
        weights = loss_weights(
            labels,
            context.dropped,
            classes,
            ignore_index=ignore,
            class_weight=context.class_weight,
            drop_divisor=self.section.drop_divisor,
            suppress_at=self.section.suppress_at,
        )
        extra = self.objective.extra_weights(labels, ignore)
        if self.objective.changes_pixels:
            kept = without_label(labels, context.dropped, ignore)
            plain = self.objective.divisor(labels, classes, context)
            branch = self.objective.branch_divisor(kept, classes, context)
            weights = torch.stack([plain, branch, weights[2]])
        return torch.cat([weights, torch.stack(extra)]) if extra else weights

    def loss(self, images: Tensor, labels: Tensor, context: StepContext, shares: Tensor | None = None) -> StepLoss:
        """Run both paths with the step's z, add the terms."""
        out: DropClassOutput = self.wrapper(images, context.dropped, resized=False)
        head = resize_left(out.logits, out.size, out.align_corners, labels)
        view = self.objective.view(View(head, labels, out.features, self.wrapper.head, out.align_corners))
        own = None if shares is None else shares[:3]
        compute = self._changed_terms if self.objective.changes_pixels else self._usual_terms
        terms = compute(out, view, context, own)
        named = {"ce": terms.ce, "ce_drop": terms.ce_drop, "suppression": terms.suppression}
        named = {name: value.detach() for name, value in named.items()} | self.objective.named(terms.ce)
        return self.objective.step_loss(terms.total, named, view, context, shares)

    def _usual_terms(self, out: DropClassOutput, view: View, context: StepContext, shares: Tensor | None) -> LossTerms:
        """Cross-entropy, as the paper has it."""
        return dropclass_loss(
            out,
            view.labels,
            progress=context.progress,
            alpha=self.section.alpha,
            ignore_index=context.ignore_index,
            class_weight=context.class_weight,
            lambda_max=self.section.lambda_max,
            drop_divisor=self.section.drop_divisor,
            suppress_at=self.section.suppress_at,
            plain_weight=self.section.plain_weight,
            shares=shares,
        )

    def _changed_terms(
        self, out: DropClassOutput, view: View, context: StepContext, shares: Tensor | None
    ) -> LossTerms:
        """The same three terms of another loss of the pixels, on both paths."""
        labels, ignore = view.labels, context.ignore_index
        check_labels(labels, self.wrapper.num_classes, ignore)
        kept = without_label(labels, out.dropped, ignore)
        branch = resize_left(out.drop_logits, out.size, out.align_corners, kept)
        values = torch.stack(
            [
                self.objective.cross_entropy(view, context),
                self.objective.pixels.mean(branch, kept, context.class_weight, context),
                suppression_loss(out, labels, ignore_index=ignore, suppress_at=self.section.suppress_at),
            ]
        )
        values = values if shares is None else values * shares.to(values.dtype)
        return weighted_terms(
            *values.unbind(),
            progress=context.progress,
            alpha=self.section.alpha,
            lambda_max=self.section.lambda_max,
            plain_weight=self.section.plain_weight,
        )

    def loss_path(self) -> str:
        """See ``Method.loss_path``."""
        return told_path(self.wrapper.classifier)

    def draw(self, labels: Tensor, context: StepContext) -> int | None:
        """z, or None."""
        return drawn_class(self.section, labels, self.wrapper.num_classes, context)

    def deploy_heads(self) -> dict[str, nn.Module]:
        """The plain model, and the folded head when the classifier is linear."""
        heads: dict[str, nn.Module] = {"plain": self.model}
        if self.wrapper.classifier.linear:
            heads["folded"] = fold(self.wrapper)
        return heads

    def branch(self) -> nn.Module | None:
        """The 1×1 block; with the output for pixels without a label, if there is one."""
        if self.objective.beside is None:
            return self.wrapper.branch
        return nn.ModuleDict({"block": self.wrapper.branch, "beside": self.objective.beside})
