"""Names of the network files in an artifact: ``models/model[.PRECISION][.sparse][.mask].onnx``."""

from __future__ import annotations

from dropclass_deploy.core.errors import UserError

PRECISIONS = ("fp32", "fp16", "int8", "mixed")
"""Numeric precisions a network file may have; "mixed" is int8 with some blocks kept in float32."""

LOGITS, DENSE, SPARSE = "logits", "dense", "sparse"
HEADS = (LOGITS, DENSE, SPARSE)
"""What a file ends in: logits; the mask from the logits at full resolution; the mask by the sparse head."""

_ENDINGS = {LOGITS: "", DENSE: ".mask", SPARSE: ".sparse.mask"}


def model_file(head: str = DENSE, precision: str = "fp32") -> str:
    """Path of a network file below the artifact's folder: ``models/model.int8.sparse.mask.onnx``.

    Args:
        head: one of ``HEADS``.
        precision: one of ``PRECISIONS``; "fp32" is written nowhere.

    Raises:
        UserError: for a head or precision that does not exist.
    """
    if precision not in PRECISIONS:
        raise UserError(f"there is no precision {precision!r}", expected=f"one of {', '.join(PRECISIONS)}")
    if head not in HEADS:
        raise UserError(f"there is no mask head {head!r}", expected=f"{DENSE} or {SPARSE}")
    return f"models/model{'' if precision == 'fp32' else f'.{precision}'}{_ENDINGS[head]}.onnx"
