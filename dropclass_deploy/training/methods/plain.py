"""Cross-entropy alone."""

from __future__ import annotations

from torch import Tensor, nn

from dropclass_deploy.models.outputs import logits_of
from dropclass_deploy.training.dropclass import Classifier
from dropclass_deploy.training.dropclass.tap import ClassifierTap
from dropclass_deploy.training.losses import (
    Resize,
    check_labels,
    counted_pixels,
    cross_entropy,
    label_weights,
    resize_left,
)
from dropclass_deploy.training.methods.method import Method, StepContext, StepLoss, told_path


class CrossEntropy(Method):
    """Plain cross-entropy; on a model with the extra block (``insert_block``) it is the control "CE + block".

    Args:
        model: the network.
        classifier: its classifier; None when it has none that can be found: the loss then takes the logits that the
            network returns.
    """

    def __init__(self, model: nn.Module, classifier: Classifier | None = None) -> None:
        super().__init__(model)
        self.classifier = classifier
        if classifier is not None and classifier.tail is None:
            self.tap = ClassifierTap(model, classifier.path, in_place=not classifier.linear)

    def loss_path(self) -> str:
        """See ``Method.loss_path``."""
        return told_path(self.classifier)

    def loss_weights(self, labels: Tensor, context: StepContext) -> Tensor:
        """(1,): of the cross-entropy."""
        if context.class_weight is None:
            return counted_pixels(labels, context.ignore_index)[None]
        return label_weights(labels, context.class_weight[None], context.ignore_index)

    def loss(self, images: Tensor, labels: Tensor, context: StepContext, shares: Tensor | None = None) -> StepLoss:
        """Class-weighted cross-entropy."""
        head = self._head(images, labels)
        check_labels(labels, head.logits.shape[1], context.ignore_index)
        ce = cross_entropy(
            head.logits,
            labels,
            ignore_index=context.ignore_index,
            class_weight=context.class_weight,
            align_corners=head.align_corners,
        )
        if shares is not None:
            ce = ce * shares[0].float()
        return StepLoss(total=ce, terms={"ce": ce.detach()})

    def _head(self, images: Tensor, labels: Tensor) -> Resize:
        if self.tap is None or self.classifier is None:
            return Resize(logits_of(self.model(images)))
        seen = self.tap.run_short(images)
        return resize_left(seen.logits, seen.size, self.classifier.align_corners, labels)
