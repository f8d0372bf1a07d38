"""What the mask files take and give."""

from __future__ import annotations

from dataclasses import dataclass

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.serving.mask_layout import MASK_DTYPES, MASK_ORDERS, NHW


@dataclass(frozen=True)
class MaskFormat:
    """Form of ``models/*.mask.onnx``; one that is not offered is refused at construction.

    Attributes:
        dtype: of the mask: "uint8", "int32" or "int64".
        layout: of the mask: "NHW", "NHWC" (one channel last) or "NCHW" (one channel first).
        bake_preprocess: the file takes uint8 images (N, H, W, 3) and normalises them; else it takes what the network
            takes, normalised float32 (N, 3, H, W).
    """

    dtype: str = "uint8"
    layout: str = NHW
    bake_preprocess: bool = True

    def __post_init__(self) -> None:
        for name, value, known in (("type", self.dtype, MASK_DTYPES), ("layout", self.layout, MASK_ORDERS)):
            if value not in known:
                raise UserError(f"there is no mask {name} {value!r}", expected=f"one of {', '.join(known)}")


AS_UINT8 = MaskFormat()
"""uint8 image (N, H, W, 3) → uint8 mask (N, H, W)."""
