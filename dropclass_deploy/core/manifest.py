"""The artifact's manifest: which files it has, and what their bytes were when it was written.

``manifest.json`` lists the sha256 of every immutable file. What is measured later (``evidence/``) is not listed. Paths
are relative, POSIX, below the artifact folder; links are refused, so that a hash always speaks of the artifact itself.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.core.files import sha256_of, write_text
from dropclass_deploy.core.preprocess import Preprocess

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
EVIDENCE = "evidence"


def _safe(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or not pure.parts or ".." in pure.parts or "\\" in path or path != str(pure):
        raise ValueError(f"unsafe path {path!r}: a plain relative path below the artifact folder is needed")
    return path


class Manifest(BaseModel):
    """``manifest.json`` as an object.

    Attributes:
        schema_version: of this file's layout; 1.
        name: of the artifact.
        model: registry name of the network.
        deploy_head: "plain" or "folded".
        precision: numeric precision of ``models/model.mask.onnx`` ("fp32").
        shape: static (N, H, W) of the ONNX inputs; a None is dynamic.
        opset: of the ONNX files.
        files: path → sha256 of every immutable file but the manifest itself.
        versions: library → version that wrote the artifact.
        provenance: where the weights come from (run, recipe digest, method, steps, seed …).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    name: str
    model: str
    deploy_head: str
    precision: str
    shape: tuple[int | None, int | None, int | None]
    opset: int
    classes: ClassTable
    preprocess: Preprocess
    files: dict[Annotated[str, AfterValidator(_safe)], str]
    versions: dict[str, str]
    provenance: dict[str, Any]


class _Version(BaseModel):
    """The one field that a manifest of any schema version has."""

    schema_version: int = SCHEMA_VERSION


def hash_files(folder: Path) -> dict[str, str]:
    """sha256 of every file below ``folder`` but the manifest and ``evidence/``, by relative POSIX path, sorted."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {
        name: sha256_of(path)
        for name, path in sorted(names.items())
        if name != MANIFEST and PurePosixPath(name).parts[0] != EVIDENCE
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into an artifact folder."""
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json``; files are not hashed here (see ``check_files``).

    Raises:
        ArtifactError: when the folder is no artifact, or its manifest is broken or of another schema.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"{folder} is not an artifact: it has no {MANIFEST}",
            expected="a folder that 'dropclass export' wrote",
            remedy="export a run first: dropclass export RUN -o ARTIFACT",
        )
    try:
        content = path.read_bytes()
        # The version comes first: the fields of another layout would only be reported as wrong ones.
        _check_version(path, _Version.model_validate_json(content).schema_version)
        return Manifest.model_validate_json(content)
    except (ValidationError, OSError) as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise ArtifactError(f"{path} cannot be read as a manifest: {reason}", remedy="export the run again") from error


def _check_version(path: Path, version: int) -> None:
    if version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path} has schema version {version}",
            expected=f"version {SCHEMA_VERSION}",
            remedy="use the dropclass-deploy version that wrote it, or export the run again",
        )


def first_problem(error: ValidationError) -> str:
    """Where a file first fails its schema, and how: one line for a message."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    # Keys come from the file: one line, and no longer than one reads.
    return " ".join(f"{place[:100]}: {first['msg'][:300]}".removeprefix(": ").split())


def check_files(folder: Path, manifest: Manifest) -> None:
    """Hash every file of the manifest and compare.

    Raises:
        ArtifactError: naming every file that is missing, is a link, or whose bytes changed.
    """
    problems = [problem for name, digest in manifest.files.items() if (problem := _problem(folder, name, digest))]
    if problems:
        raise ArtifactError(
            f"{folder} is not what was exported: " + ", ".join(problems),
            expected="files whose sha256 stands in manifest.json",
            remedy="copy the artifact again from its source, or export the run again",
        )


def _problem(folder: Path, name: str, digest: str) -> str | None:
    try:
        return _difference(folder, name, digest)
    except OSError as error:
        # A name too long for the file system, a file without read permission, a failing disk.
        return f"{name[:200]} cannot be read ({error.strerror})"


def _difference(folder: Path, name: str, digest: str) -> str | None:
    path = folder / name
    if any(part.is_symlink() for part in (path, *path.parents) if part != folder and folder in part.parents):
        return f"{name} is a link"
    if not path.is_file():
        return f"{name} is missing"
    return None if sha256_of(path) == digest else f"{name} has changed (sha256)"
