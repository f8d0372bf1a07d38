"""The folded deploy head: what the authors' code evaluates, as one convolution.

With nothing dropped the branch is: gate the channels, 1×1 convolution, BatchNorm with running statistics, ReLU, then the
classifier h. Gate, convolution and BatchNorm are linear in A (or in its positive and negative parts), so they fold into
one 1×1 convolution: K → K for features that are never negative, 2K → K on [A⁺, A⁻] otherwise.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.training.dropclass.gate import channel_gates
from dropclass_deploy.training.dropclass.wrapper import DropBranch, DropClass


class FoldedHead(nn.Module):
    """A (N, K, h, w) → logits (N, C, h, w): one 1×1 convolution, ReLU, the classifier.

    Args:
        conv: K → K, or 2K → K for features of either sign.
        classifier: the network's own.
        signed: whether A may be negative.
    """

    def __init__(self, conv: nn.Conv2d, classifier: nn.Module, *, signed: bool) -> None:
        super().__init__()
        self.conv = conv
        self.classifier = classifier
        self.signed = signed

    def forward(self, features: Tensor) -> Tensor:
        """Logits of features."""
        if self.signed:
            features = torch.cat([F.relu(features), -F.relu(-features)], dim=1)
        logits: Tensor = self.classifier(F.relu(self.conv(features)))
        return logits


def fold(method: DropClass) -> nn.Module:
    """A copy of the model whose classifier is the folded head; the method and its model stay as they are.

    Raises:
        ModelError: for a non-linear head, whose gate depends on the image and cannot fold.
    """
    if not method.classifier.linear:
        raise ModelError(
            f"the head {method.classifier.path!r} is not linear: its gate depends on the image and cannot be folded",
            remedy="deploy the plain head",
        )
    model = copy.deepcopy(method.model)
    path = method.classifier.path
    classifier = model.get_submodule(path)
    if not isinstance(classifier, nn.Conv2d):
        raise ModelError(f"{path!r} is a {type(classifier).__name__}", expected="a Conv2d")
    conv = fold_branch(method.branch, classifier.weight, signed=not method.classifier.non_negative)
    head = FoldedHead(conv, classifier, signed=not method.classifier.non_negative).train(method.model.training)
    if not path:
        return head
    # Under every name it goes by: the one that the forward pass uses need not be the first.
    names = [name for name, module in model.named_modules(remove_duplicate=False) if module is classifier]
    for name in names:
        model.set_submodule(name, head)
    return model


def fold_branch(branch: DropBranch, weight: Tensor, *, signed: bool) -> nn.Conv2d:
    """Gate (nothing dropped), convolution and BatchNorm as one 1×1 convolution.

    BatchNorm(W(g ⊙ a) + b) = s ⊙ (W diag(g)) a + s ⊙ (b − μ) + β with s = γ / √(σ² + ε). Computed in float64, stored in
    the branch's dtype: one rounding a weight.

    Args:
        branch: convolution and BatchNorm with running statistics.
        weight: the classifier's (C, K, kh, kw).
        signed: whether the input is [A⁺, A⁻] (2K channels) rather than A.
    """
    norm, conv = branch.norm, branch.conv
    if norm.running_mean is None or norm.running_var is None or norm.weight is None or conv.bias is None:
        raise ModelError("the branch has no running statistics", expected="BatchNorm with affine running statistics")
    with torch.no_grad():
        positive, negative = channel_gates(weight.double(), None)
        gates = torch.cat([positive, negative]) if signed else positive
        scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        kernel = conv.weight.double()[:, :, 0, 0]
        kernel = torch.cat([kernel, kernel], dim=1) if signed else kernel
        folded = nn.Conv2d(kernel.shape[1], kernel.shape[0], 1, dtype=conv.weight.dtype, device=conv.weight.device)
        folded.weight.copy_((scale[:, None] * kernel * gates[None, :])[:, :, None, None])
        bias = scale * (conv.bias.double() - norm.running_mean.double()) + norm.bias.double()
        if folded.bias is not None:
            folded.bias.copy_(bias)
    return folded
