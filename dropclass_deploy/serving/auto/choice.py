"""``evidence/auto.json``: what was chosen, on which machine, and whether that choice speaks of this one."""

from __future__ import annotations

import os
import platform

from pydantic import BaseModel, ConfigDict, ValidationError

from dropclass_deploy.core.model_files import DENSE, HEADS, LOGITS, PRECISIONS, model_file
from dropclass_deploy.serving.artifact import Artifact
from dropclass_deploy.serving.benchmark.environment import cpu_model
from dropclass_deploy.serving.versions import library_versions

AUTO_FILE = "auto.json"
MAX_BYTES = 2**20


class Configuration(BaseModel):
    """What runs an artifact.

    Attributes:
        runtime: one of ``runtimes.runtime_names()``.
        precision: of the network file.
        head: of the mask network.
        threads: of one operator; None leaves the choice to the runtime.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: str = "onnxruntime"
    precision: str = "fp32"
    head: str = DENSE
    threads: int | None = None

    def __str__(self) -> str:
        threads = "" if self.threads is None else f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.runtime}, {self.precision}, {self.head} head{threads}"


DEFAULT = Configuration()


class _Chosen(BaseModel):
    """The part of the file that a later load needs."""

    machine: dict[str, str | int | None]
    candidate_sha256: str
    chosen: Configuration


def machine() -> dict[str, str | int | None]:
    """What a choice depends on: processor, cores that may be used, and versions of the engines."""
    versions = library_versions(("openvino", "tensorrt", "tensorrt_rtx_cu13"))
    engines = {name: version for name, version in versions.items() if name not in ("python", "numpy", "pillow")}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": cpu_model(), "architecture": platform.machine(), "cores": cores, **engines}


def stored_choice(artifact: Artifact) -> Configuration | None:
    """The configuration that ``auto`` found for exactly this artifact on exactly such a machine; None without one.

    A file from elsewhere, of other versions, or one that cannot be read is no choice: the default then runs.
    """
    path = artifact.evidence / AUTO_FILE
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        found = _Chosen.model_validate_json(path.read_bytes())
    except (OSError, ValidationError, RecursionError):
        return None
    chosen = found.chosen
    if chosen.precision not in PRECISIONS or chosen.head not in HEADS or chosen.head == LOGITS:
        return None
    name = model_file(chosen.head, chosen.precision)
    same_file = artifact.manifest.files.get(name) == found.candidate_sha256
    return chosen if same_file and found.machine == machine() else None
