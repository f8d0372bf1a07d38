"""Float16 by onnxconverter-common: weights and arithmetic halved, input and output float32."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from dropclass_deploy.core.errors import MissingExtraError, ModelError, first_line
from dropclass_deploy.export.graphs import Model
from dropclass_deploy.export.graphs.core_and_tail import copied

_KEPT = ["Resize", "Upsample"]
"""Coordinates of a resize do not fit into 11 bits."""


def halved(core: Model) -> Model:
    """A float16 copy of a network whose input and output stay float32; resizes stay float32 inside.

    Raises:
        MissingExtraError: without onnxconverter-common. ModelError: when it cannot convert the graph.
    """
    converter = _converter()
    try:
        # Weights beyond float16's range become its largest or smallest number, with a warning each: the gate judges that.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            blocked = [*converter.DEFAULT_OP_BLOCK_LIST, *_KEPT]
            return converter.convert_float_to_float16(copied(core), keep_io_types=True, op_block_list=blocked)
    except (ValueError, RuntimeError, TypeError, KeyError) as error:
        raise ModelError(f"the network cannot be converted to float16: {first_line(error)}") from error


def _converter() -> Any:
    try:
        return importlib.import_module("onnxconverter_common.float16")
    except ImportError as error:
        raise MissingExtraError("onnxconverter-common", "quantize") from error
