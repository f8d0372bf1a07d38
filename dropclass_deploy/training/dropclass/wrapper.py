"""``DropClass(model)``: any segmentation network, plus a branch that exists only in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models.outputs import logits_of
from dropclass_deploy.training.dropclass.gate import (
    Divisor,
    channel_gates,
    class_id,
    drop_features,
    drop_features_through,
)
from dropclass_deploy.training.dropclass.probe import find_classifier
from dropclass_deploy.training.dropclass.schedule import linear, sample_dropped
from dropclass_deploy.training.dropclass.tap import ClassifierTap


@dataclass(frozen=True)
class DropClassOutput:
    """What a forward pass gives.

    Attributes:
        logits: what the model returned as logits, (N, C, H, W) or (N, C, h, w); the classifier's own, (N, C, h, w), after
            a pass with ``resized=False``.
        drop_logits: of the branch, (N, C, h, w), at the classifier's own resolution.
        dropped: z, or None when nothing was dropped.
        align_corners: of the model's own resize from (h, w) to (H, W); None when it does not resize, or not bilinearly:
            the loss then resizes ``drop_logits`` straight to the labels, bilinearly with align_corners False.
        output: all that the model returned; None after a pass with ``resized=False``.
        resized_to: (H, W) of the model's logits, when ``logits`` are the classifier's own.
        features: A (N, K, h, w), the classifier's input.
    """

    logits: Tensor
    drop_logits: Tensor
    dropped: int | None
    align_corners: bool | None
    output: Any
    resized_to: tuple[int, int] | None = None
    features: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) that the model gives its logits."""
        height, width = self.resized_to or self.logits.shape[-2:]
        return height, width


class GatedConv2d(nn.Conv2d):
    """A 1×1 convolution of features ⊙ gate, a factor a channel; the gated features themselves are never made.

    W(g ⊙ a) = (W diag g) a, gradients included: what would be a map of the features' size is a product of K × K numbers.
    """

    def forward(self, input: Tensor, gate: Tensor | None = None) -> Tensor:  # noqa: A002 (torch's name)
        """(N, K, h, w) and (K,) or None → (N, K', h, w)."""
        weight = self.weight if gate is None else self.weight * gate.to(self.weight.dtype).view(1, -1, 1, 1)
        return F.conv2d(input, weight, self.bias)


class DropBranch(nn.Sequential):
    """The block after the drop: 1×1 convolution with bias, BatchNorm, ReLU, K → K channels.

    The paper says "a convolutional layer"; the authors' code has these three.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = GatedConv2d(channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor, gate: Tensor | None = None) -> Tensor:
        """The block on features (N, K, h, w), each channel times its ``gate`` (K,) when there is one."""
        return cast(Tensor, self.relu(self.norm(self.conv(features, gate))))


class DropClass(nn.Module):
    """Train ``model`` with DropClass (arXiv 2111.00531, Algorithm 1); the model itself stays untouched.

    A (N, K, h, w), the classifier's input, is seen by a hook that lives only during a forward pass. The branch computes
    h(block(A'_drop)) with the model's own classifier h.

    Args:
        model: a network whose logits come from a last linear Conv2d; see ``logits_of`` for its output.
        classifier: path of that convolution, when it cannot be found: anything may follow it (an upsampling that is not
            bilinear, a temperature, a crop, a log-softmax), see ``find_classifier``; or of a whole head (any module that
            maps features to logits), whose importance then comes from vector-Jacobian products.
        example: an input for the probe; default noise, see ``find_classifier``.
        divisor: of the mean over classes, see ``drop_features``.
        detach_importance: let no gradient flow through S into the classifier's weight. Default False, as in the authors'
            code; always True for a non-linear head.
        max_drop_probability: probability of dropping a class at progress 1, for ``dropped="sample"``.

    Raises:
        ModelError: when the classifier cannot be found or is not one that DropClass can use.
    """

    def __init__(
        self,
        model: nn.Module,
        classifier: str | None = None,
        *,
        example: Tensor | None = None,
        divisor: Divisor = "kept",
        detach_importance: bool = False,
        max_drop_probability: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0.0 <= max_drop_probability <= 1.0:
            raise ModelError(f"max_drop_probability is {max_drop_probability}", expected="0 … 1")
        if divisor not in ("kept", "all"):
            raise ModelError(f"divisor is {divisor!r}", expected='"kept" or "all"')
        self.classifier = find_classifier(model, classifier, example)
        self.model = model
        self._tap = ClassifierTap(model, self.classifier.path, in_place=not self.classifier.linear)
        self.branch = DropBranch(self.classifier.channels)
        reference = next(model.parameters(), torch.zeros(()))
        self.branch.to(device=reference.device, dtype=reference.dtype)
        self.divisor: Divisor = divisor
        self.detach_importance = detach_importance
        self.max_drop_probability = max_drop_probability

    @property
    def num_classes(self) -> int:
        """C, channels of the logits."""
        return self.classifier.num_classes

    @property
    def tap(self) -> ClassifierTap:
        """How the model is seen at its classifier: the model that is there now (a replica has one of its own)."""
        if self._tap.model is not self.model:
            self._tap = ClassifierTap(self.model, self.classifier.path, in_place=not self.classifier.linear)
        return self._tap

    @property
    def head(self) -> nn.Module:
        """The model's classifier h."""
        return self.model.get_submodule(self.classifier.path)

    def forward(
        self,
        images: Tensor,
        dropped: SupportsIndex | Literal["sample"] | None = None,
        *,
        progress: float | None = None,
        generator: torch.Generator | None = None,
        among: Tensor | None = None,
        resized: bool = True,
    ) -> DropClassOutput:
        """Run the model and the branch.

        Args:
            images: (N, 3, H, W).
            dropped: z (any integer type), None for nothing, or "sample".
            progress: share of training done in [0, 1]; needed for "sample".
            generator: CPU generator; needed for "sample".
            among: labels; "sample" then draws among the classes in them.
            resized: False leaves out the model's own resize of its logits to the image's size, where nothing else follows
                its classifier: ``dropclass_loss`` has no need of it, and it is most of a step's memory.
        """
        z = self._choose(dropped, progress, generator, among)
        short = not resized and self.classifier.tail is None
        seen = self.tap.run_short(images) if short else self.tap.run(images)
        return DropClassOutput(
            logits=seen.logits,
            drop_logits=self._drop(seen.features, z),
            dropped=z,
            align_corners=self.classifier.align_corners,
            output=seen.output,
            resized_to=seen.size if seen.short else None,
            features=seen.features,
        )

    def _choose(
        self,
        dropped: SupportsIndex | Literal["sample"] | None,
        progress: float | None,
        generator: torch.Generator | None,
        among: Tensor | None,
    ) -> int | None:
        if isinstance(dropped, str):
            if dropped != "sample" or progress is None or generator is None:
                raise ModelError(
                    f"dropped is {dropped!r}", expected='an id, None, or "sample" with progress=… and generator=…'
                )
            probability = linear(progress, self.max_drop_probability)
            return sample_dropped(self.num_classes, probability, generator, among=among)
        return class_id(dropped, self.num_classes)

    def _drop(self, features: Tensor, dropped: int | None) -> Tensor:
        """Logits (N, C, h, w) of the branch."""
        head = self.head
        if self.classifier.linear:
            weight = cast(Tensor, head.weight)
            weight = weight.detach() if self.detach_importance else weight
            if self.classifier.non_negative:
                positive, _ = channel_gates(weight, dropped, self.divisor)
                return logits_of(head(self.branch(features, positive)))
            return logits_of(head(self.branch(drop_features(features, weight, dropped, self.divisor))))
        # A copy, for heads that work in place: the branch's ReLU needs its output in the backward pass.
        block = self.branch(drop_features_through(head, features, dropped, self.divisor)).clone()
        # A BatchNorm inside the head must not count the branch's features into the statistics that ship.
        buffers = {name: buffer.clone() for name, buffer in head.named_buffers()}
        return logits_of(torch.func.functional_call(head, buffers, (block,)))


def strip(method: nn.Module) -> nn.Module:
    """The plain model out of a ``DropClass``: the very object, same state_dict keys, same outputs bit for bit.

    Wrappers that other libraries put around a module (DistributedDataParallel, torch.compile) are looked through.

    Raises:
        ModelError: when there is no ``DropClass`` inside.
    """
    module: Any = method
    while not isinstance(module, DropClass):
        inner = getattr(module, "_orig_mod", None) or getattr(module, "module", None)
        if not isinstance(inner, nn.Module):
            raise ModelError(f"strip was given a {type(method).__name__}", expected="a DropClass")
        module = inner
    return module.model
