"""How a network hands over its mask: which integers, and in which order of dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.serving.runtimes import TensorSpec

MASK_DTYPES = ("uint8", "int32", "int64")
MASK_ORDERS = NHW, NHWC, NCHW = "NHW", "NHWC", "NCHW"
"""Orders of the dimensions; C is 1 where there is one."""

Masks = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class MaskLayout:
    """One layout of a mask output.

    Attributes:
        dtype: one of ``MASK_DTYPES``.
        order: one of ``MASK_ORDERS``.
    """

    dtype: str = "uint8"
    order: str = NHW

    def masks(self, output: npt.NDArray[Any], num_classes: int) -> Masks:
        """Class ids as uint8 (N, H, W), whatever the network gave.

        Args:
            output: (N, H, W), (N, H, W, 1) or (N, 1, H, W), as ``order`` says.
            num_classes: C of the class table; at most 255.

        Raises:
            ArtifactError: when the array has another shape, or holds ids that are no classes: cut to 8 bits they would
                look like some.
        """
        ids = self._planes(output)
        low, high = (int(ids.min()), int(ids.max())) if ids.size else (0, 0)
        if low < 0 or high >= num_classes:
            raise ArtifactError(
                f"the network gives class ids from {low} to {high}", expected=f"0 … {num_classes - 1}, its classes"
            )
        return ids.astype(np.uint8, copy=False)

    def _planes(self, output: npt.NDArray[Any]) -> npt.NDArray[np.integer[Any]]:
        axis = self.order.find("C")
        if output.ndim != len(self.order) or (axis > 0 and output.shape[axis] != 1):
            raise ArtifactError(f"the network gives a mask of shape {output.shape}", expected=self.order)
        return output if axis < 0 else output.squeeze(axis)


def mask_layout(spec: TensorSpec) -> MaskLayout | None:
    """The layout of a mask output, or None when it is none that is known.

    (N, 1, H, 1) is taken as (N, 1, H, W): one column, not one row.
    """
    if spec.dtype not in MASK_DTYPES:
        return None
    if len(spec.shape) == 3:
        return MaskLayout(spec.dtype, NHW)
    if len(spec.shape) == 4 and 1 in (spec.shape[1], spec.shape[3]):
        return MaskLayout(spec.dtype, NCHW if spec.shape[1] == 1 else NHWC)
    return None
