"""A network file's own words against the manifest around it: both can be forged, but not one of them alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.core.manifest import Manifest
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.regular_files import RefusedFileError, check_json

_NAMES = TypeAdapter(tuple[str, ...])
LONGEST = 2**20
"""Characters of one entry of the metadata that are read."""


def check_metadata(path: Path, metadata: Mapping[str, str], manifest: Manifest) -> None:
    """Refuse a network that says of itself something else than the manifest says; what it leaves out is not missed.

    Args:
        path: of the network, for messages.
        metadata: its ``metadata_props``.
        manifest: of its artifact.

    Raises:
        ArtifactError: when preprocessing, class names or rare classes differ, or the metadata cannot be read.
    """
    classes = manifest.classes
    try:
        if (text := _entry(metadata, "preprocess")) is not None:
            found = Preprocess.model_validate_json(text).digest()
            _same(path, "preprocessing", found, manifest.preprocess.digest())
        if (text := _entry(metadata, "class_names")) is not None:
            _same(path, "class names", _NAMES.validate_json(text), classes.names)
        if (text := _entry(metadata, "rare_classes")) is not None:
            rare = tuple(classes.names[index] for index in classes.rare)
            # None at all means that they were not known when the file was written.
            _same(path, "rare classes", _NAMES.validate_json(text) or rare, rare)
    except (ValidationError, RefusedFileError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise ArtifactError(
            f"the metadata of {path} cannot be read: {reason}", remedy="export the run again"
        ) from error


def _entry(metadata: Mapping[str, str], key: str) -> str | None:
    text = metadata.get(key)
    if text is None:
        return None
    if len(text) > LONGEST:
        raise RefusedFileError(f"{key} has {len(text):,} characters")
    check_json(text.encode("utf-8", "surrogatepass"))
    return text


def _same(path: Path, what: str, own: object, manifest: object) -> None:
    if own != manifest:
        raise ArtifactError(
            f"{path} carries other {what} than the manifest of its artifact",
            expected="the same",
            remedy="copy the artifact again from its source, or export the run again",
        )
