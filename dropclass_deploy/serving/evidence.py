"""Where measurements are written: ``evidence/`` of the artifact, or wherever the caller wants them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.files import write_json
from dropclass_deploy.core.model_files import DENSE


def parity_file(precision: str, head: str, runtime: str) -> str:
    """Name of the gate's report: ``parity.json`` of the file that everyone embeds, another one a variant and engine."""
    engine = "onnxruntime" if runtime == "auto" else runtime
    if (precision, head, engine) == ("fp32", DENSE, "onnxruntime"):
        return "parity.json"
    return f"parity.{precision}.{head}.{engine}.json"


def check_writable(path: Path, option: str) -> None:
    """Make the folder of ``path`` and see that it can be written to, before anything long is measured.

    Args:
        path: of the file that will be written.
        option: the command line option that names another place.

    Raises:
        UserError: when it cannot be written, naming the option.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Tried, not asked for: permissions alone do not tell of a read-only disk, nor a superuser's of the others'.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _refusal(path, option, error.strerror or str(error)) from error


def write_evidence(path: Path, content: dict[str, Any], option: str) -> None:
    """Write a measurement as JSON, atomically. Raises UserError naming ``option`` when it cannot be written."""
    try:
        write_json(path, content)
    except OSError as error:
        raise _refusal(path, option, error.strerror or str(error)) from error


def _refusal(path: Path, option: str, reason: str) -> UserError:
    return UserError(
        f"{path} cannot be written ({reason})",
        expected="a folder that can be written",
        remedy=f"name another with {option}",
    )
