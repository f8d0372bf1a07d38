"""``evidence/auto.json``: what was chosen, on which machine, and whether that choice speaks of this one."""

from __future__ import annotations

import os
import platform
from importlib.util import find_spec

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.core.model_files import DENSE, HEADS, LOGITS, PRECISIONS, model_file
from dropclass_deploy.core.regular_files import RefusedFileError, read_json
from dropclass_deploy.serving.artifact import Artifact
from dropclass_deploy.serving.auto.options import CPU_RUNTIMES, GPU_RUNTIMES
from dropclass_deploy.serving.benchmark.environment import cpu_model, gpu_models
from dropclass_deploy.serving.evidence import parity_file
from dropclass_deploy.serving.versions import library_versions

AUTO_FILE = "auto.json"
PASSED, REFUSED = "passed", "refused"
INSTALLED_BY = {"openvino": "openvino", "onnxruntime": "onnxruntime"}
"""CPU engine → package; the one that INT8 is made for first."""
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
    if (
        not same_file
        or found.machine != here
        or _verdict(artifact, chosen.precision, chosen.head, chosen.runtime) == REFUSED
    ):
        return None
    return chosen


def judged_runtime(artifact: Artifact, precision: str, head: str) -> str | None:
    """An engine that is installed here and on which the gate passed exactly this file; None where there is no such report."""
    passed = (
        runtime
        for runtime, package in INSTALLED_BY.items()
        if find_spec(package) is not None and _verdict(artifact, precision, head, runtime) == PASSED
    )
    return next(passed, None)


class _Report(BaseModel):
    """The part of a parity report that is looked at."""

    verdict: str
    candidate_sha256: str


def _verdict(artifact: Artifact, precision: str, head: str, runtime: str) -> str | None:
    """What the gate said of exactly this file on an engine: passed, refused, or nothing."""
    try:
        path = artifact.evidence / parity_file(precision, head, runtime)
        found = _Report.model_validate_json(read_json(path, MAX_BYTES))
    except (OSError, ArtifactError, RefusedFileError, ValidationError):
        return None
    if found.candidate_sha256 != artifact.manifest.files.get(model_file(head, precision)):
        return None
    return PASSED if found.verdict == "pass" else REFUSED
