"""``configs/metadata.json``: the artifact as a MONAI bundle, written without MONAI.

Source of the layout: the MONAI bundle specification (docs.monai.io, "MONAI Bundle Specification"), required fields and
``network_data_format``, and the metadata schema that the file names. How the network is run stands in ``inference.json``
(see ``monai_inference``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.export.shapes import Shape

BUNDLE_VERSION = "1.0.0"
MONAI_VERSION = "1.6.1"
"""The release whose bundle specification the file follows; MONAI itself is not used."""

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
"""Where ``monai.bundle.verify_metadata`` finds the rules of this file."""

IGNITE_VERSION = "0.5.5"
"""The release of pytorch-ignite that the evaluator of ``inference.json`` was run with."""

_REQUIRED = ("onnxruntime", "onnxruntime-gpu")


def bundle_metadata(
    name: str,
    description: str,
    classes: ClassTable,
    preprocess: Preprocess,
    shape: Shape,
    versions: dict[str, str],
    *,
    author: str,
    licence: str,
) -> dict[str, Any]:
    """``metadata.json`` of the network ``models/model.onnx`` as a dict.

    Args:
        versions: library → version; "torch" and "numpy" must be there.
    """
    return {
        "schema": SCHEMA,
        "version": BUNDLE_VERSION,
        "changelog": {BUNDLE_VERSION: "exported by dropclass-deploy"},
        "monai_version": MONAI_VERSION,
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": {
            **{key: versions[key] for key in _REQUIRED if key in versions},
            "pytorch-ignite": IGNITE_VERSION,
        },
        "name": name,
        "task": f"semantic segmentation into {len(classes)} classes",
        "description": description,
        "authors": author,
        "copyright": licence,
        "image_classes": "RGB image, 8 bits a channel before normalisation",
        "pred_classes": ", ".join(f"{index}: {name}" for index, name in enumerate(classes.names)),
        "network_data_format": {
            "inputs": {"image": _image_format(preprocess, shape)},
            "outputs": {"pred": _prediction_format(classes, preprocess, shape)},
        },
    }


def _spatial(preprocess: Preprocess, shape: Shape) -> list[int | str]:
    """Height and width of what the network sees, "*" where any will do: with a window, one window."""
    if preprocess.window is not None:
        return list(preprocess.window.size)
    return ["*" if size is None else size for size in shape[1:]]


def _image_format(preprocess: Preprocess, shape: Shape) -> dict[str, Any]:
    scale, shift = preprocess.scale_and_shift()
    # float32 → shortest decimal that means the same float32
    limits = [float(str(value)) for value in (np.min(shift), np.max(255 * scale + shift))]
    return {
        "type": "image",
        "format": "RGB",
        "modality": "n/a",
        "num_channels": 3,
        "spatial_shape": _spatial(preprocess, shape),
        "dtype": "float32",
        "value_range": limits,
        "is_patch_data": preprocess.window is not None,
        "channel_def": {"0": "red", "1": "green", "2": "blue"},
    }


def _prediction_format(classes: ClassTable, preprocess: Preprocess, shape: Shape) -> dict[str, Any]:
    return {
        "type": "image",
        "format": "logits",
        "num_channels": len(classes),
        "spatial_shape": _spatial(preprocess, shape),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": preprocess.window is not None,
        "channel_def": {str(index): name for index, name in enumerate(classes.names)},
    }
