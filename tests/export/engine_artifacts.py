"""Artifacts of tiny networks to build engines from."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnxconverter_common import float16

from dropclass_deploy.core.manifest import hash_files, read_manifest, write_manifest
from dropclass_deploy.core.model_files import DENSE, model_file

KEPT_IN_FP32 = ["Resize", "ArgMax"]


def rehash(folder: Path) -> Path:
    """Write the manifest anew, as an export that made these files would have."""
    manifest = read_manifest(folder)
    write_manifest(folder, manifest.model_copy(update={"files": hash_files(folder)}))
    return folder


def add_fp16(folder: Path) -> Path:
    """The float16 mask file beside the float32 one."""
    model = onnx.load(folder / model_file(DENSE))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of each tiny weight that it rounds up
        half = float16.convert_float_to_float16(model, keep_io_types=True, op_block_list=KEPT_IN_FP32)
    # The converter calls the result of the first Cast float16 and leaves the Cast itself going to float32.
    first = next(node for node in half.graph.node if node.op_type == "Cast")
    first.attribute[0].i = onnx.TensorProto.FLOAT16
    onnx.save(half, folder / model_file(DENSE, "fp16"))
    return rehash(folder)


def copy_with(source: Path, target: Path, edit: Callable[[Any], None], precision: str = "fp32") -> Path:
    """A copy of an artifact whose mask network is edited, with a manifest that agrees."""
    shutil.copytree(source, target)
    path = target / model_file(DENSE, precision)
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path)
    return rehash(target)
