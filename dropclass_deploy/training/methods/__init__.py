"""The training methods behind one interface: what is optimised, what a step costs, which networks come out."""

from dropclass_deploy.training.methods.building import build_method, probe_example
from dropclass_deploy.training.methods.class_drop import DropClassMethod
from dropclass_deploy.training.methods.draw import present_classes
from dropclass_deploy.training.methods.extra_block import BlockThenClassifier, insert_block
from dropclass_deploy.training.methods.method import Method, StepContext, StepLoss
from dropclass_deploy.training.methods.plain import CrossEntropy

__all__ = [
    "BlockThenClassifier",
    "CrossEntropy",
    "DropClassMethod",
    "Method",
    "StepContext",
    "StepLoss",
    "build_method",
    "insert_block",
    "present_classes",
    "probe_example",
]
