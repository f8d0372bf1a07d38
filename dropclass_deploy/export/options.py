"""How an artifact is exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.model_files import PRECISIONS
from dropclass_deploy.core.sliding_window import Window
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.export.graphs import OPSETS
from dropclass_deploy.export.mask_format import AS_UINT8, MaskFormat
from dropclass_deploy.export.shapes import DYNAMIC, Shape, checked_shape, describe_shape, fixed_size
from dropclass_deploy.export.source import HEADS

NOT_STATED = "not stated"


@dataclass(frozen=True)
class ExportOptions:
    """Options of ``export_artifact``; contradictions are refused at construction.

    Attributes:
        deploy_head: "plain" or "folded"; None takes the run's choice.
        weights: which of a run's networks: "last", "best-miou" or "best-rare-miou" (see ``training.run.load_run``).
        shape: (N, H, W) of the ONNX inputs, None where dynamic; height and width are both fixed or both dynamic.
        opset: 18–20.
        data: data set, or FORMAT:PATH, for the sample and the stored reference masks; None takes what the run was
            trained on.
        split: of ``data``.
        reference_limit: at most so many reference masks; 0 stores none, None the whole split.
        overwrite: replace an artifact that stands at the output.
        author: of the model, as text.
        licence: of the weights, as text.
        codes: class name → SNOMED CT code.
        mask_format: of the mask files: type, layout, normalisation inside or not.
        precisions: of the network files: "fp32" always, "fp16", "int8" (mixed where INT8 alone does not pass the gate),
            "mixed".
        calibration_split: of ``data``, for INT8: training images, which the gate does not see.
        calibration_data: instead of a split of ``data``.
        budget_minutes: for each lower precision's search; None for no limit.
        allow_insufficient: classes whose "insufficient" does not refuse a precision.
        window: slides over images larger than it (``preprocess.json`` says so, and ``Segmenter`` does it); None keeps what
            the run's or module's preprocessing has.
        bias_card: folder that ``dropclass analyze`` wrote about this network; it goes into ``docs/``.
    """

    deploy_head: str | None = None
    weights: str = "last"
    shape: Shape = DYNAMIC
    opset: int = 18
    data: str | Dataset | None = None
    split: str = "val"
    reference_limit: int | None = None
    overwrite: bool = False
    author: str = NOT_STATED
    licence: str = NOT_STATED
    codes: Mapping[str, str] | None = None
    mask_format: MaskFormat = AS_UINT8
    precisions: tuple[str, ...] = ("fp32",)
    calibration_split: str = "train"
    calibration_data: Dataset | None = None
    budget_minutes: float | None = 20.0
    allow_insufficient: tuple[str, ...] = ()
    window: Window | None = None
    bias_card: Path | None = None

    def __post_init__(self) -> None:
        checked_shape(self.shape)
        if self.opset not in OPSETS:
            raise UserError(f"opset {self.opset} is not offered", expected=f"one of {', '.join(map(str, OPSETS))}")
        if self.deploy_head is not None and self.deploy_head not in HEADS:
            raise UserError(f"there is no deploy head {self.deploy_head!r}", expected=" or ".join(HEADS))
        unknown = [name for name in self.precisions if name not in PRECISIONS]
        if unknown or not self.precisions:
            found = f"precision {unknown[0]!r} is not available" if unknown else "no precision is named"
            raise UserError(found, expected=f"one or more of {', '.join(PRECISIONS)}")
        if self.reference_limit is not None and self.reference_limit < 0:
            raise UserError(f"reference_limit is {self.reference_limit}", expected="0 or more")
        check_window(self.window, self.shape)


def check_window(window: Window | None, shape: Shape) -> None:
    """Raise UserError when the network's fixed shape is not that of the window that it shall see."""
    size = fixed_size(shape)
    if window is not None and size is not None and size != window.size:
        height, width = window.size
        raise UserError(
            f"the shape {describe_shape(shape)} fixes {size[0]}×{size[1]} but the window is {height}×{width}",
            expected="the window's height and width in the shape",
            remedy=f"export with --shape {shape[0] or 'N'}x{height}x{width}, or with dynamic shapes",
        )
