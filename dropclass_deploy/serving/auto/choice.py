"""``evidence/auto.json``: what was chosen, on which machine, and whether that choice speaks of this one."""

from __future__ import annotations

import os
import platform

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.core.model_files import DENSE, HEADS, LOGITS, PRECISIONS, model_file
from dropclass_deploy.core.regular_files import RefusedFileError, read_json
from dropclass_deploy.serving.artifact import Artifact
from dropclass_deploy.serving.auto.options import CPU_RUNTIMES, GPU_RUNTIMES
from dropclass_deploy.serving.benchmark.environment import cpu_model, gpu_models
from dropclass_deploy.serving.versions import library_versions

AUTO_FILE = "auto.json"
MAX_BYTES = 2**20
MOST_THREADS = 1024


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
    threads: int | None = Field(default=None, ge=1, le=MOST_THREADS)

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
    """What a choice depends on: processor, cores that may be used, GPUs, and versions of the engines."""
    versions = library_versions(("openvino", "tensorrt", "tensorrt_rtx_cu13"))
    engines = {name: version for name, version in versions.items() if name not in ("python", "numpy", "pillow")}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = gpu_models()
    return {"cpu": cpu_model(), "architecture": platform.machine(), "cores": cores, "gpus": gpus, **engines}


def stored_choice(artifact: Artifact) -> Configuration | None:
    """The configuration that ``auto`` found for exactly this artifact on exactly such a machine; None without one.

    A file from elsewhere, of other versions, or one that cannot be read is no choice: the default then runs. A GPU is
    chosen only where the driver names the same one.
    """
    try:
        found = _Chosen.model_validate_json(read_json(artifact.evidence / AUTO_FILE, MAX_BYTES))
    except (OSError, ArtifactError, RefusedFileError, ValidationError):
        return None
    chosen = found.chosen
    if chosen.precision not in PRECISIONS or chosen.head not in HEADS or chosen.head == LOGITS:
        return None
    here = machine()
    if chosen.runtime not in CPU_RUNTIMES and not (chosen.runtime in GPU_RUNTIMES and here["gpus"]):
        return None
    name = model_file(chosen.head, chosen.precision)
    same_file = artifact.manifest.files.get(name) == found.candidate_sha256
    return chosen if same_file and found.machine == here else None
