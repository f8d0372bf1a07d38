"""DropClass (NeurIPS 2021, arXiv 2111.00531): the method itself.

Gate (Eq. 1–5) → branch → the same classifier → losses (Eq. 6–9). Where the paper and its authors' code differ, the
docstring of the function names both, and which is the default and why.
"""

from dropclass_deploy.training.dropclass.fold import FoldedHead, fold
from dropclass_deploy.training.dropclass.gate import channel_gates, drop_features, drop_features_through
from dropclass_deploy.training.dropclass.loss import (
    LossTerms,
    dropclass_loss,
    loss_weights,
    suppression_loss,
    weighted_terms,
)
from dropclass_deploy.training.dropclass.probe import Classifier, find_classifier
from dropclass_deploy.training.dropclass.schedule import linear, sample_dropped
from dropclass_deploy.training.dropclass.wrapper import DropClass, DropClassOutput, strip

__all__ = [
    "Classifier",
    "DropClass",
    "DropClassOutput",
    "FoldedHead",
    "LossTerms",
    "channel_gates",
    "drop_features",
    "drop_features_through",
    "dropclass_loss",
    "find_classifier",
    "fold",
    "linear",
    "loss_weights",
    "sample_dropped",
    "strip",
    "suppression_loss",
    "weighted_terms",
]
