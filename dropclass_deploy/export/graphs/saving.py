"""A graph as one checked file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.core.files import write_bytes
from dropclass_deploy.export.graphs.library import Model, helper, onnx

OPSETS = (18, 19, 20)
MAX_BYTES = 2**31 - 1
"""A protobuf message, and so a single-file ONNX model, ends at 2 GB."""


def save(model: Model, path: Path, metadata: Mapping[str, str], opset: int) -> None:
    """Check a model and write it as one file, atomically.

    Args:
        model: what to write; its ``metadata_props`` are replaced.
        path: the ``.onnx`` file.
        metadata: key → text.
        opset: the version of the default operator set that the file must have.

    Raises:
        ModelError: when the checker refuses the graph, the opset is another, or the file would pass 2 GB.
    """
    helper.set_model_props(model, dict(metadata))
    found = {entry.domain: entry.version for entry in model.opset_import}
    if found.get("", found.get("ai.onnx")) != opset:
        raise ModelError(f"the export has operator sets {found}", expected=f"opset {opset} of the default domain")
    _refuse_large(model.ByteSize())
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"the ONNX checker refuses the exported graph: {reason}") from error
    write_bytes(path, model.SerializeToString(deterministic=True))


def write(model: Model, path: Path) -> None:
    """Write a model as it is, for a library that reads files only."""
    path.write_bytes(model.SerializeToString())


def load(path: Path) -> Model:
    """A model that ``save`` wrote."""
    return onnx.load(path, load_external_data=False)


def _refuse_large(size: int) -> None:
    if size > MAX_BYTES:
        raise ModelError(
            f"the ONNX file would take {size / 2**30:.1f} GiB",
            expected="at most 2 GB: one file holds the whole model",
            remedy="export a smaller network",
        )
