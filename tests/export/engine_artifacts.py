"""Artifacts of tiny networks to build engines from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from dropclass_deploy.core.manifest import hash_files, read_manifest, write_manifest
from dropclass_deploy.core.model_files import DENSE, LOGITS, model_file
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.export.graphs.core_and_tail import join_tail, split_tail
from dropclass_deploy.export.graphs.mask_network import with_mask_head
from dropclass_deploy.export.quantise.half import halved


def rehash(folder: Path) -> Path:
    """Write the manifest anew, as an export that made these files would have."""
    manifest = read_manifest(folder)
    write_manifest(folder, manifest.model_copy(update={"files": hash_files(folder)}))
    return folder


def add_fp16(folder: Path) -> Path:
    """The float16 mask file beside the float32 one, converted as an export does it."""
    core, tail = split_tail(onnx.load(folder / model_file(LOGITS)))
    onnx.save(with_mask_head(join_tail(halved(core), tail), Preprocess()), folder / model_file(DENSE, "fp16"))
    return rehash(folder)


def copy_with(source: Path, target: Path, edit: Callable[[Any], None], precision: str = "fp32") -> Path:
    """A copy of an artifact whose mask network is edited, with a manifest that agrees."""
    shutil.copytree(source, target)
    path = target / model_file(DENSE, precision)
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path)
    return rehash(target)
