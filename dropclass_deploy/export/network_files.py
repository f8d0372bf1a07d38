"""The files of one network in one precision: with logits, with the dense mask head, with the sparse one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dropclass_deploy.core.model_files import DENSE, HEADS, LOGITS, SPARSE, model_file
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.export.mask_format import MaskFormat
from dropclass_deploy.export.to_onnx import Traced, save_logits, save_mask, save_sparse_mask


def write_network(
    folder: Path, network: Traced, precision: str, preprocess: Preprocess, metadata: Mapping[str, str], form: MaskFormat
) -> str:
    """Write the three files, or two and the reason why the network has no place for the sparse head.

    Args:
        folder: the artifact's.
        network: the logits graph in that precision.
        precision: for the names.
        preprocess: of the network.
        metadata: ``metadata_props`` of all files.
        form: of the mask files.

    Returns:
        The reason, "" when all three were written.
    """
    (folder / model_file()).parent.mkdir(parents=True, exist_ok=True)
    save_logits(network, folder / model_file(LOGITS, precision), metadata)
    save_mask(network, preprocess, folder / model_file(DENSE, precision), metadata, form)
    return save_sparse_mask(network, preprocess, folder / model_file(SPARSE, precision), metadata, form)


def remove_network(folder: Path, precision: str) -> None:
    """Remove what ``write_network`` wrote."""
    for head in HEADS:
        (folder / model_file(head, precision)).unlink(missing_ok=True)
