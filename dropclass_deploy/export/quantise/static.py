"""INT8 with static ranges in QDQ form, by NNCF and by ONNX Runtime's own quantiser.

Activations are unsigned, weights signed 8 bits (U8S8): ONNX Runtime's default, signed activations, runs slower than
float32 on CPUs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.errors import MissingExtraError, ModelError, first_line
from dropclass_deploy.export import graphs
from dropclass_deploy.export.graphs import Model
from dropclass_deploy.export.graphs.core_and_tail import copied
from dropclass_deploy.export.graphs.quantised import float_output
from dropclass_deploy.export.quiet import quiet
from dropclass_deploy.serving.runtimes.no_telemetry import import_quietly

Batch = npt.NDArray[np.float32]
INPUT = "image"


def _nncf(core: Model, batches: Sequence[Batch], preset: str) -> Model:
    nncf = _library("nncf")
    dataset = nncf.Dataset([{INPUT: batch} for batch in batches])
    return nncf.quantize(copied(core), dataset, preset=nncf.QuantizationPreset(preset), subset_size=len(batches))


def _ort(core: Model, batches: Sequence[Batch], method: str, per_channel: bool) -> Model:
    quantisation = _library("onnxruntime.quantization")
    shapes = _library("onnxruntime.quantization.shape_inference")
    with tempfile.TemporaryDirectory(prefix="dropclass-int8-") as name:
        folder = Path(name)
        graphs.write(core, folder / "float.onnx")
        # Its optimiser would rename operators, by which single ones are taken back to float32 later; its symbolic shape
        # inference gives up on dynamic sizes, which ONNX's own settles.
        shapes.quant_pre_process(
            folder / "float.onnx", folder / "ready.onnx", skip_optimization=True, skip_symbolic_shape=True
        )
        quantisation.quantize_static(
            folder / "ready.onnx",
            folder / "int8.onnx",
            _Reader(batches),
            quant_format=quantisation.QuantFormat.QDQ,
            per_channel=per_channel,
            activation_type=quantisation.QuantType.QUInt8,
            weight_type=quantisation.QuantType.QInt8,
            calibrate_method=quantisation.CalibrationMethod[method],
            # A Relu that only a range stands for would be lost where that range is taken away again.
            extra_options={"QDQKeepRemovableActivations": True},
        )
        return float_output(graphs.load(folder / "int8.onnx"))


METHODS: dict[str, Callable[[Model, Sequence[Batch]], Model]] = {
    "nncf mixed": lambda core, batches: _nncf(core, batches, "mixed"),
    "nncf performance": lambda core, batches: _nncf(core, batches, "performance"),
    "onnxruntime minmax, per channel": lambda core, batches: _ort(core, batches, "MinMax", True),
    "onnxruntime percentile, per channel": lambda core, batches: _ort(core, batches, "Percentile", True),
    "onnxruntime minmax, per tensor": lambda core, batches: _ort(core, batches, "MinMax", False),
}
"""Name → quantiser of a core (float32 in and out) with calibration batches (N, 3, H, W), normalised."""


def quantised(core: Model, batches: Sequence[Batch], method: str) -> Model:
    """The core in QDQ form by one of ``METHODS``.

    Raises:
        MissingExtraError: without the method's library. ModelError: when it cannot quantise the graph.
    """
    try:
        with quiet():
            return METHODS[method](core, batches)
    except MissingExtraError:
        raise
    except Exception as error:
        # Both libraries raise whatever their dozen dependencies do.
        raise ModelError(
            f"{method} cannot quantise the network: {type(error).__name__}: {first_line(error)}"
        ) from error


class _Reader:
    """ONNX Runtime's CalibrationDataReader: one batch a call, then None."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._left = iter(batches)

    def get_next(self) -> dict[str, Batch] | None:
        batch = next(self._left, None)
        return None if batch is None else {INPUT: batch}

    def set_range(self, start_index: int, end_index: int) -> None:
        """Asked of every reader; all batches are one range."""


def _library(name: str) -> Any:
    try:
        with quiet():
            return import_quietly(name)
    except ImportError as error:
        raise MissingExtraError(name.split(".")[0], "quantize") from error
