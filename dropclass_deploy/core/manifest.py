"""The artifact's manifest: which files it has, and what their bytes were when it was written.

``manifest.json`` lists the sha256 of every immutable file. What is measured later (``evidence/``) is not listed. Paths
are relative, POSIX, below the artifact folder; links are refused, so that a hash always speaks of the artifact itself.
"""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import ArtifactError, printable
from dropclass_deploy.core.files import sha256_of, write_text
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.regular_files import MIB, RefusedFileError, open_regular, read_json

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
EVIDENCE = "evidence"


PICKLES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz"})
"""Endings of files that are, or may hold, pickles: loading one runs whatever code it names."""

# Bytes that a listed file may have, by its ending; others are only hashed, and never held whole.
_LIMITS = {".json": 64 * MIB, ".png": 256 * MIB, ".onnx": 2048 * MIB}
_LONGEST_NAME = 200
_DEEPEST = 64
_NAMED, _ENOUGH = 5, 1000
"""Broken files that one message names, and those after which no more are looked for."""


def _safe(path: str) -> str:
    # On strings, not on pathlib's objects: an artifact may list a hundred thousand files.
    parts = path.split("/")
    if not {"", ".", ".."}.isdisjoint(parts) or "\\" in path or parts[0][1:2] == ":":
        raise ValueError(f"unsafe path {path[:200]!r}: a plain relative path below the artifact folder is needed")
    if _suffix(parts[-1]) in PICKLES:
        raise ValueError(f"unsafe file {path[:200]!r}: a pickle runs code when it is loaded, and no artifact needs one")
    return path


def _suffix(name: str) -> str:
    return name[name.rfind(".") :].lower() if "." in name else ""


def _one_line(text: str) -> str:
    if printable(text) != text:
        raise ValueError(f"{text[:200]!r} holds a control character")
    return text


_Line = Annotated[str, AfterValidator(_one_line)]


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
    name: _Line
    model: _Line
    deploy_head: str
    precision: str
    shape: tuple[int | None, int | None, int | None]
    opset: int = Field(ge=1, le=1000)
    classes: ClassTable
    preprocess: Preprocess
    files: dict[Annotated[str, AfterValidator(_safe)], str]
    versions: dict[str, str]
    provenance: dict[str, Any]

    @field_validator("classes")
    @classmethod
    def _readable(cls, classes: ClassTable) -> ClassTable:
        for name in classes.names:
            _one_line(name)
        return classes


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
    if not path.is_file() and not path.is_symlink():
        raise ArtifactError(
            f"{folder} is not an artifact: it has no {MANIFEST}",
            expected="a folder that 'dropclass export' wrote",
            remedy="export a run first: dropclass export RUN -o ARTIFACT",
        )
    try:
        content = read_json(path, _LIMITS[".json"])
        # The version comes first: the fields of another layout would only be reported as wrong ones.
        _check_version(path, _Version.model_validate_json(content).schema_version)
        return Manifest.model_validate_json(content)
    except (ValidationError, RefusedFileError, OSError) as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else _told(error)
        raise ArtifactError(f"{path} cannot be read as a manifest: {reason}", remedy="export the run again") from error


def _told(error: RefusedFileError | OSError) -> str:
    return f"it {error}" if isinstance(error, RefusedFileError) else error.strerror or str(error)


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
        ArtifactError: naming the first files that are missing, links, no regular files, too large, or changed.
    """
    links = _LinkedFolders(folder)
    found = (_problem(folder, name, digest, links) for name, digest in manifest.files.items())
    problems = list(islice(filter(None, found), _ENOUGH))
    if problems:
        more = f" and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise ArtifactError(
            f"{folder} is not what was exported: " + ", ".join(problems[:_NAMED]) + more,
            expected="files whose sha256 stands in manifest.json",
            remedy="copy the artifact again from its source, or export the run again",
        )


class _LinkedFolders:
    """Which folders below an artifact are reached through a link; each is looked at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = {"": False}

    def has(self, parents: tuple[str, ...]) -> bool:
        """Whether one of the folders on the way, relative to the artifact, is a link."""
        key = "/".join(parents)
        if key not in self._known:
            self._known[key] = self.has(parents[:-1]) or (self._folder / key).is_symlink()
        return self._known[key]


def _problem(folder: Path, name: str, digest: str, links: _LinkedFolders) -> str | None:
    parts = name.split("/")
    shown = name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "…"
    try:
        if len(parts) > _DEEPEST:
            return f"{shown} lies too deep"
        if links.has(tuple(parts[:-1])):
            return f"{shown} is a link"
        with open_regular(f"{folder}/{name}", _LIMITS.get(_suffix(parts[-1]))) as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        return None if found == digest else f"{shown} has changed (sha256)"
    except (FileNotFoundError, NotADirectoryError):
        return f"{shown} is missing"
    except RefusedFileError as error:
        return f"{shown} {error}"
    except (OSError, ValueError) as error:
        # A name too long for the file system or with a NUL, a file without read permission, a failing disk.
        return f"{shown} cannot be read ({getattr(error, 'strerror', None) or error})"
