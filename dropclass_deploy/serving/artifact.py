"""An artifact folder, opened: every byte checked against its manifest before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.core.manifest import (
    EVIDENCE,
    MANIFEST,
    Manifest,
    check_files,
    first_problem,
    read_manifest,
)
from dropclass_deploy.core.model_files import DENSE, HEADS, LOGITS, PRECISIONS, SPARSE, model_file
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.regular_files import MIB, RefusedFileError, read_json

PREPROCESS = "preprocess.json"
NEEDED = (model_file(DENSE), model_file(LOGITS), PREPROCESS)
MAX_SPECIFICATION = MIB
"""Bytes of ``preprocess.json``; a real one has some hundred."""
_MODEL_FILES = tuple(model_file(head, precision) for precision in PRECISIONS for head in HEADS)


@dataclass(frozen=True)
class Artifact:
    """A checked artifact folder."""

    folder: Path
    manifest: Manifest

    @property
    def classes(self) -> ClassTable:
        """Names, colours, rare classes."""
        return self.manifest.classes

    @property
    def preprocess(self) -> Preprocess:
        """What happens between a decoded image and the network."""
        return self.manifest.preprocess

    def model(self, head: str = DENSE, precision: str = "fp32") -> Path:
        """The network file of a head and a precision (see ``core.model_files``); only files of the manifest are named.

        Raises:
            ArtifactError: when the artifact has no such file, naming those it has.
            UserError: for a head or precision that does not exist.
        """
        name = model_file(head, precision)
        if name not in self.manifest.files:
            raise ArtifactError(
                f"{self.folder} has no {name} (head {head!r}, precision {precision!r})",
                expected="one of " + ", ".join(name for name in _MODEL_FILES if name in self.manifest.files),
                remedy="choose one of them, or export the run again with this precision",
            )
        return self.folder / name

    def variants(self) -> tuple[tuple[str, str], ...]:
        """(head, precision) of every mask network in the artifact, as ``Segmenter`` takes them."""
        pairs = ((head, precision) for precision in PRECISIONS for head in (DENSE, SPARSE))
        return tuple(pair for pair in pairs if model_file(*pair) in self.manifest.files)

    @property
    def evidence(self) -> Path:
        """The folder of what is measured later.

        Raises:
            ArtifactError: when it is a link: what is written there would land wherever the link points.
        """
        return evidence_folder(self.folder)


def evidence_folder(artifact: Path) -> Path:
    """``evidence/`` of an artifact's folder. Raises ArtifactError when it is a link, see ``Artifact.evidence``."""
    folder = artifact / EVIDENCE
    if folder.is_symlink():
        raise ArtifactError(
            f"{folder} is a link",
            expected="a folder of the artifact itself",
            remedy="remove the link, or name another place (--evidence of verify, -o of bench)",
        )
    return folder


def open_artifact(path: str | Path) -> Artifact:
    """Open an artifact folder and check the sha256 of every file in its manifest.

    Raises:
        ArtifactError: when the folder is no artifact (a run folder, for instance), lacks a file that serving needs, was
            changed since it was written, or when its ``preprocess.json`` says something else than its manifest.
    """
    folder = Path(path)
    if (folder / "recipe.yaml").is_file() and not (folder / MANIFEST).exists():
        raise ArtifactError(
            f"{folder} is a training run, not an artifact",
            remedy=f"export it first: dropclass export {folder} -o ARTIFACT",
        )
    manifest = read_manifest(folder)
    unlisted = [name for name in NEEDED if name not in manifest.files]
    if unlisted:
        raise ArtifactError(
            f"the manifest of {folder} does not list {', '.join(unlisted)}",
            expected="a complete artifact",
            remedy="export the run again",
        )
    check_files(folder, manifest)
    _check_preprocess(folder, manifest)
    return Artifact(folder, manifest)


def _check_preprocess(folder: Path, manifest: Manifest) -> None:
    path = folder / PREPROCESS
    try:
        written = Preprocess.model_validate_json(read_json(path, MAX_SPECIFICATION))
    except (ValidationError, RefusedFileError) as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else f"it {error}"
        raise ArtifactError(f"{path} cannot be read: {reason}", remedy="export the run again") from error
    if written.digest() != manifest.preprocess.digest():
        raise ArtifactError(
            f"{path} and the manifest of {folder} name different preprocessing",
            expected="the same",
            remedy="export the run again",
        )
