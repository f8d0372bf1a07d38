"""What a training method is: what is optimised, what a step costs, which networks come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.training.dropclass import Classifier
from dropclass_deploy.training.dropclass.tap import ClassifierTap


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
        class_log_frequency: (C,) finite, see ``losses.logit_shift``; None when it is not known.
        dropped: z of this step, or None; set from ``Method.draw``.
    """

    step: int
    progress: float
    seed: int
    ignore_index: int
    class_weight: Tensor | None
    dropped: int | None = None
    class_log_frequency: Tensor | None = None


class Method(ABC):
    """A way of training a network.

    Attributes:
        model: the network that ``strip`` leaves.
        tap: how training sees its classifier; None when it cannot stop there.
        module: what is trained: its parameters are the optimiser's.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.tap: ClassifierTap | None = None
        self.module: nn.Module = model

    def train_beside(self, beside: nn.Module | None) -> None:
        """Train a module that is no part of the network with it."""
        if beside is not None:
            reference = next(self.module.parameters())
            beside.to(device=reference.device, dtype=reference.dtype)
            self.module = nn.ModuleDict({"network": self.module, "beside": beside})

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

    def check_compilable(self) -> None:
        """Refuse a network that training has to run whole, see ``loss_path``.

        Raises:
            ModelError: saying why.
        """
        if self.tap is None:
            raise ModelError(
                f"this network cannot be compiled for training ({self.loss_path()})", remedy="set train.compile: false"
            )

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Inside the block the network runs through ``torch.compile`` in training, where it can be tapped."""
        with nullcontext() if self.tap is None else self.tap.compiled():
            yield

    def deploy_heads(self) -> dict[str, nn.Module]:
        """The networks that can be deployed, by name; "plain" is always there."""
        return {"plain": self.model}

    def branch(self) -> nn.Module | None:
        """What only training and the folded head need, or None."""
        return None


def told_path(classifier: Classifier | None) -> str:
    """A line for the log: how the loss gets from the logits of a network's classifier to the labels' size."""
    reason = "its classifier cannot be found" if classifier is None else classifier.tail
    if reason is None and classifier is not None and classifier.align_corners is None:
        return "loss: on the classifier's own logits, which the network does not resize"
    if reason is None:
        return "loss: fused with the resize of the logits, which never exist at full size"
    return f"loss: on the logits that the network returns, at full size ({reason})"
