"""What an ONNX file says about itself in ``metadata_props``; every value is optional and none is trusted."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.serving.runtimes import Runtime

_NAMES = TypeAdapter(tuple[str, ...])


def preprocess_of(runtime: Runtime, title: str) -> Preprocess | None:
    """The file's preprocessing, or None where it says nothing. Raises ArtifactError when it cannot be read."""
    text = runtime.metadata.get("preprocess")
    if text is None:
        return None
    try:
        return Preprocess.model_validate_json(text)
    except ValidationError as error:
        raise _broken(title, "preprocess", error) from error


def class_names_of(runtime: Runtime, title: str) -> tuple[str, ...]:
    """Class names in id order; empty where the file says nothing."""
    return _names(runtime, title, "class_names")


def rare_classes_of(runtime: Runtime, title: str) -> tuple[str, ...]:
    """Names of the rare classes; empty where the file says nothing."""
    return _names(runtime, title, "rare_classes")


def _names(runtime: Runtime, title: str, key: str) -> tuple[str, ...]:
    text = runtime.metadata.get(key)
    if text is None:
        return ()
    try:
        return _NAMES.validate_json(text)
    except ValidationError as error:
        raise _broken(title, key, error) from error


def _broken(title: str, key: str, error: ValidationError) -> ArtifactError:
    details: Any = error.errors()[0]
    return ArtifactError(
        f"{title} carries metadata {key!r} that cannot be read: {details['msg']}",
        expected="JSON as dropclass-deploy writes it",
        remedy=f"write the file again, or remove {json.dumps(key)} from its metadata",
    )
