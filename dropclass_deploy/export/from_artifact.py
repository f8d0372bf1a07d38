"""The PyTorch network of an artifact, rebuilt from its manifest and ``models/model.safetensors``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from dropclass_deploy.core.errors import ArtifactError, ModelError
from dropclass_deploy.core.manifest import Manifest, check_files, read_manifest
from dropclass_deploy.export.artifact_folder import WEIGHTS_FILE
from dropclass_deploy.export.reference import TorchReference
from dropclass_deploy.models import build_model, model_names, rebuildable
from dropclass_deploy.training.dropclass import DropClass, fold
from dropclass_deploy.training.methods import insert_block


def network_from_artifact(path: Path | str) -> nn.Module:
    """The network whose weights the artifact carries: (N, 3, H, W) → logits; eval mode, on the CPU.

    Raises:
        ArtifactError: when the artifact was changed, or its network is none that this package can build (a module of
            the user's own).
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    # Never a python: factory: that would run whatever code an artifact from anywhere names.
    if not rebuildable(manifest.model):
        raise ArtifactError(
            f"{folder} holds a network {manifest.model!r} that cannot be rebuilt by name",
            expected=f"one of {', '.join(model_names())}, timm:NAME",
            remedy="export with data, so that the reference masks are stored in the artifact",
        )
    try:
        network = _structure(manifest)
        network.load_state_dict(load_file(folder / WEIGHTS_FILE), strict=True)
    except (ModelError, SafetensorError, RuntimeError, OSError, TypeError, ValueError, AttributeError) as error:
        # The last three: the provenance is free JSON, and options of another shape end as calls that do not fit.
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(
            f"the network of {folder} cannot be rebuilt: {reason}", remedy="export the run again"
        ) from error
    return network.eval().requires_grad_(False)


def reference_from_artifact(path: Path | str) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]:
    """The PyTorch reference of an artifact: image uint8 (H, W, 3) → mask uint8 (H, W).

    Raises:
        ArtifactError: as ``network_from_artifact``.
    """
    return TorchReference(network_from_artifact(path), read_manifest(Path(path)).preprocess)


def _structure(manifest: Manifest) -> nn.Module:
    """The network as it was exported, with random weights."""
    options = manifest.provenance.get("options") or {}
    network = build_model(manifest.model, len(manifest.classes), None, **options)
    classifier = manifest.provenance.get("classifier")
    if manifest.provenance.get("method") == "ce+block":
        return insert_block(network, classifier)
    return fold(DropClass(network, classifier)) if manifest.deploy_head == "folded" else network
