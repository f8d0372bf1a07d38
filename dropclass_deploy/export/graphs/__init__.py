"""ONNX graphs in hand: tidying, mask heads, saving as one file. The only room that imports ``onnx``."""

from dropclass_deploy.export.graphs.library import Model, onnx_version
from dropclass_deploy.export.graphs.mask_network import with_mask_head, with_sparse_head
from dropclass_deploy.export.graphs.saving import OPSETS, load, save, write
from dropclass_deploy.export.graphs.tidying import operator_counts, tidy, with_output

__all__ = [
    "OPSETS",
    "Model",
    "load",
    "onnx_version",
    "operator_counts",
    "save",
    "tidy",
    "with_mask_head",
    "with_output",
    "with_sparse_head",
    "write",
]
