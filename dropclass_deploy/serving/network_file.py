"""The one way from an artifact to a network file that may be loaded, built from or shipped."""

from __future__ import annotations

from pathlib import Path

from dropclass_deploy.core.model_files import DENSE, model_file
from dropclass_deploy.serving.artifact import Artifact
from dropclass_deploy.serving.consistency import check_metadata
from dropclass_deploy.serving.runtimes.onnx_file.graph_safety import check_network_file


def network_file(artifact: Artifact, head: str = DENSE, precision: str = "fp32") -> Path:
    """The path of a network file, checked now: its bytes, what it asks of the machine, and what it says of itself.

    An artifact is hashed when it is opened, and a network may be needed hours later: here its bytes are read and hashed
    once more, and looked at before any runtime sees them.

    Args:
        artifact: as opened.
        head: one of ``core.model_files.HEADS``.
        precision: one of ``core.model_files.PRECISIONS``.

    Raises:
        ArtifactError: when the artifact has no such file, the file changed since the artifact was opened, is no
            self-contained ONNX model of standard operators, or contradicts the manifest.
        UserError: for a head or precision that does not exist.
    """
    path = artifact.model(head, precision)
    metadata = check_network_file(path, artifact.manifest.files[model_file(head, precision)])
    check_metadata(path, metadata, artifact.manifest)
    return path
