"""The cross-entropy of a head's pixels, as the components of a recipe change it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dropclass_deploy.training.losses import (
    Resize,
    balanced_variation,
    boundary_weight,
    cross_entropy,
    focal_loss,
    hard_pixel_weight,
    label_weights,
    resize_logits,
)
from dropclass_deploy.training.methods.method import StepContext
from dropclass_deploy.training.recipe.components import ON_PIXELS, ComponentOptions


@dataclass(frozen=True)
class PixelLoss:
    """From a head's logits to the mean loss of its pixels.

    In this order: the logits are shifted (``logit_adjustment``, ``blv``), each pixel gets a weight (``boundary``, ``ohem``),
    and its loss is the cross-entropy or ``focal``.

    Attributes:
        options: of the recipe's components.
    """

    options: ComponentOptions

    @property
    def names(self) -> tuple[str, ...]:
        """The components at work here; none: plain cross-entropy."""
        return tuple(name for name in ON_PIXELS if getattr(self.options, name) is not None)

    def mean(
        self, head: Resize, labels: Tensor, table: Tensor | None, context: StepContext, unlabelled: int | None = None
    ) -> Tensor:
        """Mean over the pixels that count, weighted by class and pixel; a scalar.

        Args:
            head: of C classes, or C + 1 with an output for pixels without a label.
            labels: (N, H, W) ids or ``context.ignore_index``.
            table: (C,) class weights or None.
            unlabelled: id of the pixels without a label, where they have one: they bound no object.
        """
        head = replace(head, logits=self._shifted(head.logits, context))
        ignore, focal = context.ignore_index, self.options.focal
        weight = self._pixel_weight(head, labels, ignore, unlabelled)
        if focal is not None:
            wide = resize_logits(head.logits, labels, align_corners=head.align_corners)
            return focal_loss(
                wide, labels, gamma=focal.gamma, ignore_index=ignore, class_weight=table, pixel_weight=weight
            )
        return cross_entropy(
            head.logits,
            labels,
            ignore_index=ignore,
            class_weight=table,
            pixel_weight=weight,
            align_corners=head.align_corners,
        )

    def divisor(self, labels: Tensor, table: Tensor, ignore_index: int, unlabelled: int | None = None) -> Tensor:
        """What the mean divides by, as far as labels say, float64: these images' weight in their step.

        Which pixels are hard only the logits say: every image of a step counts with all of its pixels in ``ohem``, and the
        hard ones are looked for in each part of a step by itself.
        """
        return label_weights(labels, table[None], ignore_index, self._boundary(labels, ignore_index, unlabelled))[0]

    def _shifted(self, logits: Tensor, context: StepContext) -> Tensor:
        adjusted, varied, frequency = self.options.logit_adjustment, self.options.blv, context.class_log_frequency
        if frequency is None or (adjusted is None and varied is None):
            return logits
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        # An output beside the classes (for pixels without a label) is left as it is.
        own, beside = wide[:, : len(frequency)], wide[:, len(frequency) :]
        if adjusted is not None:
            own = own + adjusted.tau * frequency.view(1, -1, 1, 1)
        if varied is not None:
            own = balanced_variation(own, -frequency, sigma=varied.sigma)
        return torch.cat([own, beside], dim=1) if beside.shape[1] else own

    def _pixel_weight(self, head: Resize, labels: Tensor, ignore_index: int, unlabelled: int | None) -> Tensor | None:
        weight, ohem = self._boundary(labels, ignore_index, unlabelled), self.options.ohem
        if ohem is None:
            return weight
        wide = resize_logits(head.logits.detach(), labels, align_corners=head.align_corners)
        hard = hard_pixel_weight(
            wide, labels, threshold=ohem.threshold, min_kept=ohem.min_kept, ignore_index=ignore_index
        )
        return hard if weight is None else hard * weight

    def _boundary(self, labels: Tensor, ignore_index: int, unlabelled: int | None) -> Tensor | None:
        options = self.options.boundary
        if options is None:
            return None
        return boundary_weight(
            labels, weight=options.weight, width=options.width, ignore_index=ignore_index, background=unlabelled
        )
