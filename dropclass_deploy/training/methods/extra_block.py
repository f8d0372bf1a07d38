"""The control that DropClass has to beat: the same extra parameters, trained by cross-entropy alone."""

from __future__ import annotations

from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.training.dropclass import Classifier, find_classifier
from dropclass_deploy.training.dropclass.wrapper import DropBranch


class BlockThenClassifier(nn.Sequential):
    """The control's head: DropClass's extra block, then the network's own classifier."""

    def __init__(self, block: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.classifier = classifier


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
