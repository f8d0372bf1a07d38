"""The training methods behind one interface: what is optimised, what a step costs, which networks come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models.outputs import logits_of
from dropclass_deploy.training.batches.loader import generator_for
from dropclass_deploy.training.dropclass import (
    Classifier,
    DropClass,
    DropClassOutput,
    dropclass_loss,
    find_classifier,
    fold,
    linear,
    loss_weights,
    sample_dropped,
)
from dropclass_deploy.training.dropclass.probe import output_channels
from dropclass_deploy.training.dropclass.tap import ClassifierTap
from dropclass_deploy.training.dropclass.wrapper import DropBranch
from dropclass_deploy.training.losses import (
    Resize,
    check_labels,
    counted_pixels,
    cross_entropy,
    label_weights,
    resize_left,
)
from dropclass_deploy.training.recipe import MethodSection


@dataclass(frozen=True)
class StepLoss:
    """Loss of one step: the sum to differentiate, every term by name (detached), and the dropped class."""

    total: Tensor
    terms: dict[str, Tensor]
    dropped: int | None = None


@dataclass(frozen=True)
class StepContext:
    """Where in the run a step stands; equal on all processes.

    Attributes:
        step: number of the step, from 0.
        progress: share of training done, in [0, 1).
        seed: of the run.
        ignore_index: label that counts nowhere.
        class_weight: (C,) or None.
        dropped: z of this step, or None; set from ``Method.draw``.
    """

    step: int
    progress: float
    seed: int
    ignore_index: int
    class_weight: Tensor | None
    dropped: int | None = None


class Method(ABC):
    """A way of training a network.

    Attributes:
        model: the network that ``strip`` leaves.
        tap: how training sees its classifier; None when it cannot stop there.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.tap: ClassifierTap | None = None

    @property
    def module(self) -> nn.Module:
        """What is trained: its parameters are the optimiser's."""
        return self.model

    def draw(self, labels: Tensor, context: StepContext) -> int | None:
        """The class to drop in this step, from this process's labels of the whole step; the same on all processes."""
        del labels, context
        return None

    @abstractmethod
    def loss_weights(self, labels: Tensor, context: StepContext) -> Tensor:
        """What each term divides by, float64 (number of terms,): see ``training.dropclass.loss_weights``."""

    @abstractmethod
    def loss(self, images: Tensor, labels: Tensor, context: StepContext, shares: Tensor | None = None) -> StepLoss:
        """Run ``self.module`` and compute the loss.

        ``shares``, one a term, are these images' shares in the step when they are not the whole of it.
        """

    @abstractmethod
    def loss_path(self) -> str:
        """A line for the log: whether the loss is computed from small logits, or why not."""

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Inside the block the network runs through ``torch.compile`` in training.

        Raises:
            ModelError: for a network that training has to run whole, see ``loss_path``.
        """
        if self.tap is None:
            raise ModelError(
                f"this network cannot be compiled for training ({self.loss_path()})", remedy="set train.compile: false"
            )
        with self.tap.compiled():
            yield

    def deploy_heads(self) -> dict[str, nn.Module]:
        """The networks that can be deployed, by name; "plain" is always there."""
        return {"plain": self.model}

    def branch(self) -> nn.Module | None:
        """What only training and the folded head need, or None."""
        return None


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
        if self.classifier is None:
            return told_path("its classifier cannot be found")
        return told_path(self.classifier.tail)

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


def told_path(reason: str | None) -> str:
    """A line for the log: how the loss gets from the logits to the labels' size."""
    if reason is None:
        return "loss: fused with the resize of the logits, which never exist at full size"
    return f"loss: on the logits that the network returns, at full size ({reason})"


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
            shares=shares,
        )
        named = {"ce": terms.ce, "ce_drop": terms.ce_drop, "suppression": terms.suppression}
        return StepLoss(terms.total, {name: value.detach() for name, value in named.items()}, context.dropped)

    def loss_path(self) -> str:
        """See ``Method.loss_path``."""
        return told_path(self.wrapper.classifier.tail)

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


def build_method(
    model: nn.Module, section: MethodSection, classifier: str | None = None, size: tuple[int, int] = (64, 64)
) -> Method:
    """The method a recipe names, around ``model`` (which "ce+block" changes: it gets the block).

    ``size`` (height, width) is one that the model can be run on, for models that refuse the probe's 64×64.

    Raises:
        ModelError: when the method needs the classifier and it cannot be found.
    """
    if section.name == "dropclass":
        return DropClassMethod(model, section, classifier, probe_example(model, size))
    example = probe_example(model, size)
    if section.name == "ce+block":
        model = insert_block(model, classifier, example)
        classifier = None
    return CrossEntropy(model, _findable(model, classifier, example))


def _findable(model: nn.Module, path: str | None, example: Tensor | None) -> Classifier | None:
    """The classifier, when there is one to be found: plain cross-entropy has no need of it."""
    try:
        return find_classifier(model, path, example)
    except ModelError:
        return None


class BlockThenClassifier(nn.Sequential):
    """The control's head: DropClass's extra block, then the network's own classifier."""

    def __init__(self, block: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.classifier = classifier


def probe_example(model: nn.Module, size: tuple[int, int]) -> Tensor | None:
    """None when the model takes the probe's own noise, else noise of a size that the run's images have."""
    try:
        output_channels(model, (64, 64))
    except ModelError:
        reference = next(model.parameters(), torch.zeros(()))
        noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        return noise.to(device=reference.device, dtype=reference.dtype)
    return None


def insert_block(model: nn.Module, classifier: str | None = None, example: Tensor | None = None) -> nn.Module:
    """Put a 1×1 convolution, BatchNorm and ReLU (K → K) before the classifier, in place; a second call changes nothing.

    It is the control that DropClass has to beat: the same extra parameters, trained by cross-entropy alone.
    """
    if any(isinstance(module, BlockThenClassifier) for module in model.modules()):
        return model
    found: Classifier = find_classifier(model, classifier, example)
    if not found.path:
        raise ModelError("the model is itself the classifier", expected="a network around it")
    head = model.get_submodule(found.path)
    block = DropBranch(found.channels).to(next(head.parameters()).device)
    replacement = BlockThenClassifier(block, head)
    # Under every name it has: a forward pass may use any of them.
    for name in [name for name, module in model.named_modules(remove_duplicate=False) if module is head]:
        model.set_submodule(name, replacement)
    return model
