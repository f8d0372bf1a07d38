"""Which plan to run for a network file: only one that was built from these bytes, by this version of the library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dropclass_deploy.core.errors import ArtifactError, MissingExtraError, UserError
from dropclass_deploy.core.files import sha256_of
from dropclass_deploy.core.manifest import MANIFEST, read_manifest
from dropclass_deploy.serving.artifact import evidence_folder
from dropclass_deploy.serving.runtimes.tensorrt_native.built_here import TRUST, check_built_here, remember
from dropclass_deploy.serving.runtimes.tensorrt_native.engine_record import (
    PLAN,
    EngineRecord,
    engines_folder,
    read_plan,
    read_record,
)
from dropclass_deploy.serving.runtimes.tensorrt_native.tensorrt_library import AUTO, Library, import_tensorrt


@dataclass(frozen=True)
class Engine:
    """A plan that may be run: its checked bytes, its sidecar, and the library that reads it."""

    plan: bytes
    record: EngineRecord
    library: Library


def choose_engine(path: Path, library: str = AUTO, capability: str | None = None) -> Engine:
    """The engine of a network file.

    Args:
        path: of a ``.plan``, or of an ONNX file ``ARTIFACT/models/NAME.mask.onnx``, whose plans are looked for in
            ``ARTIFACT/evidence/engines``.
        library: flavour to run with; "auto": the one that built the plan.
        capability: compute capability of the GPU, such as "8.9"; None: unknown, and not asked about.

    Raises:
        ArtifactError: without a plan, or when the plan, its sidecar, the ONNX file, the library and the GPU do not belong
            together, or when this user did not build it here.
        MissingExtraError: when the library that built the plan is not installed.
    """
    wanted = _Here(library, capability)
    if path.suffix == PLAN:
        return _checked(path, network=_network_of(path), here=wanted)
    _check_network(path)
    folder = engines_folder(evidence_folder(path.parent.parent))
    refusals: list[UserError] = []
    for plan in sorted(folder.glob(f"*{PLAN}")):
        try:
            if read_record(plan).request.onnx == f"{path.parent.name}/{path.name}":
                return _checked(plan, network=path, here=wanted)
        except UserError as error:
            refusals.append(error)
    missing = next((error for error in refusals if isinstance(error, MissingExtraError)), None)
    if missing is not None:
        raise missing
    reason = "; ".join(error.found for error in refusals) or f"{folder} holds none for it"
    raise ArtifactError(
        f"there is no engine to run for {path}: {reason}",
        expected="a plan built from this file, for this GPU, by the installed version of TensorRT",
        remedy=next(
            (error.remedy for error in refusals if error.remedy == TRUST),
            f"build one: dropclass engine {path.parent.parent}",
        ),
    )


@dataclass(frozen=True)
class _Here:
    """What a plan has to fit."""

    library: str
    capability: str | None


def _check_network(path: Path) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist or is no file", expected="an ONNX file of an artifact, or a .plan")
    if not path.name.endswith(MASK_FILE):
        raise ArtifactError(
            f"{path} has no engine: engines are built from mask files only",
            remedy="give images of the size that the network was exported for, or use --runtime onnxruntime",
        )


def _network_of(plan: Path) -> Path | None:
    """The ONNX file beside which a plan is cached; None for a plan that lies elsewhere (``--evidence DIR``).

    Raises:
        ArtifactError: when the plan lies in an artifact that lacks the file.
    """
    artifact = plan.absolute().parent.parent.parent
    if not (artifact / MANIFEST).is_file():
        return None
    return _named(artifact, plan, read_record(plan))


def _named(artifact: Path, plan: Path, record: EngineRecord) -> Path:
    """The network file of the artifact that a sidecar names."""
    name = record.request.onnx
    if name not in read_manifest(artifact).files or not (artifact / name).is_file():
        raise ArtifactError(f"{plan} was built from {name!r}, which {artifact} does not have", remedy=_REMEDY)
    return artifact / name


def _checked(plan: Path, *, network: Path | None, here: _Here) -> Engine:
    """The plan's bytes, when everything agrees. The library is imported last: it takes longest."""
    record = read_record(plan)
    request = record.request
    if network is not None and sha256_of(network) != request.onnx_sha256:
        raise ArtifactError(f"{plan.name} was built from another {request.onnx}", remedy=_REMEDY)
    if here.library not in (AUTO, request.library):
        raise ArtifactError(f"{plan.name} was built by {request.library}, not by {here.library}", remedy=_REMEDY)
    chips = request.compute_capabilities
    if here.capability is not None and chips and here.capability not in chips:
        raise ArtifactError(
            f"{plan.name} is for GPUs of compute capability {', '.join(chips)}, and this one has {here.capability}",
            remedy=_REMEDY,
        )
    content = read_plan(plan, record)
    library = import_tensorrt(request.library)
    if library.version != request.library_version:
        raise ArtifactError(
            f"{plan.name} was built by {request.library} {request.library_version} and {library.version} is installed",
            expected="the same version: a plan is read by no other",
            remedy=_REMEDY,
        )
    check_built_here(plan, record)
    return Engine(content, record, library)


def trust_engine(artifact: Path, plan: Path) -> EngineRecord:
    """Take in a plan that was built elsewhere: from now on it is run as if it had been built here.

    A plan is code. Only its bytes and the network that it names are checked; whether its maker is to be trusted is the
    caller's to know.

    Raises:
        ArtifactError: when plan, sidecar and a network of the artifact do not belong together. UserError: when there is
            no cache folder to keep the mark in.
    """
    record = read_record(plan)
    if sha256_of(_named(artifact, plan, record)) != record.request.onnx_sha256:
        raise ArtifactError(f"{plan.name} was built from another {record.request.onnx}", remedy=_REMEDY)
    read_plan(plan, record)
    if not remember(record):
        raise UserError(
            f"nothing can be kept of {plan.name}",
            expected="a cache folder that is yours and that nobody else can write to",
            remedy="set DROPCLASS_CACHE to one",
        )
    return record


_REMEDY = "build it again: dropclass engine ARTIFACT"
MASK_FILE = ".mask.onnx"
