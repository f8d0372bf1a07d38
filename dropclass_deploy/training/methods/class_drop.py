"""DropClass as a training method."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropclass_deploy.training.batches.draws import generator_for
from dropclass_deploy.training.dropclass import (
    DropClass,
    DropClassOutput,
    dropclass_loss,
    fold,
    linear,
    loss_weights,
    sample_dropped,
)
from dropclass_deploy.training.methods.method import Method, StepContext, StepLoss, told_path
from dropclass_deploy.training.recipe import MethodSection


class DropClassMethod(Method):
    """Algorithm 1 of arXiv 2111.00531."""

    def __init__(
        self, model: nn.Module, section: MethodSection, classifier: str | None, example: Tensor | None = None
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

    @property
    def module(self) -> nn.Module:
        """The wrapped model with its branch."""
        return self.wrapper

    def loss_weights(self, labels: Tensor, context: StepContext) -> Tensor:
        """(3,): of CE, CE_drop and L_sup."""
        return loss_weights(
            labels,
            context.dropped,
            self.wrapper.num_classes,
            ignore_index=context.ignore_index,
            class_weight=context.class_weight,
            drop_divisor=self.section.drop_divisor,
            suppress_at=self.section.suppress_at,
        )

    def loss(self, images: Tensor, labels: Tensor, context: StepContext, shares: Tensor | None = None) -> StepLoss:
        """Run both paths with the step's z, add the terms."""
        out: DropClassOutput = self.wrapper(images, context.dropped, resized=False)
        terms = dropclass_loss(
            out,
            labels,
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
        named = {"ce": terms.ce, "ce_drop": terms.ce_drop, "suppression": terms.suppression}
        return StepLoss(terms.total, {name: value.detach() for name, value in named.items()}, context.dropped)

    def loss_path(self) -> str:
        """See ``Method.loss_path``."""
        return told_path(self.wrapper.classifier)

    def draw(self, labels: Tensor, context: StepContext) -> int | None:
        """z, or None; see ``sample_dropped``."""
        # A generator of (seed, step): every process draws the same class, and a resumed run the same as an unbroken one.
        probability = linear(context.progress, self.section.drop_max)
        among = present_classes(labels, self.wrapper.num_classes) if self.section.drop_among == "batch" else None
        return sample_dropped(
            self.wrapper.num_classes, probability, generator_for(context.seed, 3, context.step), among=among
        )

    def deploy_heads(self) -> dict[str, nn.Module]:
        """The plain model, and the folded head when the classifier is linear."""
        heads: dict[str, nn.Module] = {"plain": self.model}
        if self.wrapper.classifier.linear:
            heads["folded"] = fold(self.wrapper)
        return heads

    def branch(self) -> nn.Module | None:
        """The 1×1 block."""
        return self.wrapper.branch


def present_classes(labels: Tensor, num_classes: int) -> Tensor:
    """Ids of the classes in the labels of *all* processes, so that all draw the same z."""
    ids = labels.long().flatten()
    present = torch.bincount(ids[(ids >= 0) & (ids < num_classes)], minlength=num_classes)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(present)
    return present.nonzero().flatten()
