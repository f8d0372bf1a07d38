"""A TensorRT engine on disk: ``evidence/engines/NAME.plan`` and the sidecar ``NAME.plan.json`` that says what it is.

The plan is the library's own bytes, never prefixed. It is a cache beside the ONNX file: it is run only when its bytes, the
ONNX file it was built from and the library's version are those of the sidecar.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.core.manifest import first_problem
from dropclass_deploy.core.regular_files import MIB, RefusedFileError, read_json, read_regular
from dropclass_deploy.serving.runtimes.base import TensorSpec

ENGINES = "engines"
PLAN = ".plan"
SIDECAR = ".json"
LARGEST_SIDECAR = MIB
LARGEST_PLAN = 4096 * MIB
"""Twice the largest ONNX file."""

Flavour = Literal["tensorrt", "tensorrt-rtx"]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Size = tuple[int, int, int]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Profile(_Frozen):
    """The image shapes (N, H, W) that an engine of a dynamic network takes, and the one it is tuned for."""

    min: Size
    opt: Size
    max: Size

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for low, middle, high in zip(self.min, self.opt, self.max, strict=True):
            if not 1 <= low <= middle <= high:
                raise ValueError("a profile needs 1 <= min <= opt <= max in each of N, H and W")
        return self


class Tensor(_Frozen):
    """An input or output as JSON; a dynamic dimension is null."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @classmethod
    def of(cls, spec: TensorSpec) -> Self:
        """The same as ``spec``."""
        return cls(name=spec.name, dtype=spec.dtype, shape=spec.shape)

    def spec(self) -> TensorSpec:
        """The same as a ``TensorSpec``."""
        return TensorSpec(self.name, self.dtype, self.shape)


class EngineRequest(_Frozen):
    """What an engine is built from and for; two equal requests give the same engine.

    Attributes:
        library: flavour of TensorRT.
        library_version: its version; another one cannot read the plan.
        compute_capabilities: of the GPUs it is for ("8.9"); empty: the library's own default set.
        onnx: name of the network file in the artifact.
        onnx_sha256: of that file.
        precision: as read from the ONNX graph.
        tf32: whether float32 convolutions may round their inputs to TF32.
        workspace_mib: limit of scratch memory while building and running; None leaves it to the library.
        profile: image shapes of a dynamic network, None for a static one.
    """

    library: Flavour
    library_version: str
    compute_capabilities: tuple[str, ...]
    onnx: str
    onnx_sha256: Sha256
    precision: str
    tf32: bool = False
    workspace_mib: int | None = None
    profile: Profile | None = None

    @property
    def arithmetic(self) -> str:
        """The precision that really computes: the graph's, and "+tf32" where float32 may be rounded to that."""
        return self.precision + ("+tf32" if self.tf32 else "")


class EngineRecord(_Frozen):
    """The sidecar.

    Attributes:
        schema_version: of this file's layout; 1.
        request: what was asked.
        plan_sha256: of the plan's bytes.
        inputs: of the network, as its definition had them before building.
        outputs: likewise.
        metadata: ``metadata_props`` of the ONNX file: classes, preprocessing, provenance.
        build_s: how long building took.
    """

    schema_version: Literal[1] = 1
    request: EngineRequest
    plan_sha256: Sha256
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    metadata: dict[str, str]
    build_s: float


def engines_folder(evidence: Path) -> Path:
    """Where plans lie below an evidence folder. Raises ArtifactError when it is a link."""
    folder = evidence / ENGINES
    if folder.is_symlink():
        raise ArtifactError(f"{folder} is a link", expected="a folder of its own", remedy="remove the link")
    return folder


def plan_name(precision: str, request: EngineRequest) -> str:
    """File name of a plan: ``fp16.tensorrt-rtx.sm86-sm89.1x24x32-2x24x32-2x24x32.plan``.

    What is asked of the library is in it, so that an engine never takes the place of another: TF32 behind the precision,
    the profile (smallest, best and largest shape, or one where they are equal), the workspace limit as ``ws64`` MiB.

    Args:
        precision: of the network file, one of ``core.model_files.PRECISIONS``.
        request: what is built.
    """
    chips = "-".join(f"sm{capability.replace('.', '')}" for capability in request.compute_capabilities) or "any"
    parts = [precision + ("-tf32" if request.tf32 else ""), request.library, chips]
    if (profile := request.profile) is not None:
        ends = ["x".join(map(str, size)) for size in (profile.min, profile.opt, profile.max)]
        parts.append("-".join(ends) if len(set(ends)) > 1 else ends[0])
    if request.workspace_mib is not None:
        parts.append(f"ws{request.workspace_mib}")
    return ".".join(parts) + PLAN


def record_path(plan: Path) -> Path:
    """The sidecar of a plan."""
    return plan.with_name(plan.name + SIDECAR)


def read_record(plan: Path) -> EngineRecord:
    """The sidecar of a plan.

    Raises:
        ArtifactError: when it is missing, no sidecar, or of another layout.
    """
    path = record_path(plan)
    try:
        return EngineRecord.model_validate_json(read_json(path, LARGEST_SIDECAR))
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{plan} has no sidecar {path.name}",
            expected="a plan and the sidecar that was written with it",
            remedy="build it again: dropclass engine ARTIFACT",
        ) from error
    except (ValidationError, RefusedFileError, OSError) as error:
        raise _broken(path, first_problem(error) if isinstance(error, ValidationError) else _told(error)) from error


def read_plan(plan: Path, record: EngineRecord) -> bytes:
    """The bytes of a plan, once they are the ones that were built; hash and use the same bytes, read once.

    Raises:
        ArtifactError: when the file is missing, no regular one, cut short or changed.
    """
    try:
        content = read_regular(plan, LARGEST_PLAN)
    except (RefusedFileError, OSError) as error:
        raise ArtifactError(f"{plan} cannot be read: {_told(error)}", remedy=_REBUILD) from error
    if hashlib.sha256(content).hexdigest() != record.plan_sha256:
        raise ArtifactError(
            f"{plan} is not the plan that was built (sha256)", expected="the bytes its sidecar names", remedy=_REBUILD
        )
    return content


_REBUILD = "build it again: dropclass engine ARTIFACT"


def _told(error: RefusedFileError | OSError) -> str:
    return f"it {error}" if isinstance(error, RefusedFileError) else error.strerror or str(error)


def _broken(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(f"{path} cannot be read as an engine's sidecar: {reason}", remedy=_REBUILD)
