"""Which plan to run for a network file: only one that was built from these bytes, by this version of the library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dropclass_deploy.core.errors import ArtifactError, UserError
from dropclass_deploy.core.files import sha256_of
from dropclass_deploy.core.manifest import EVIDENCE
from dropclass_deploy.serving.runtimes.engine_record import PLAN, EngineRecord, engines_folder, read_plan, read_record
from dropclass_deploy.serving.runtimes.tensorrt_library import AUTO, Library, import_tensorrt


@dataclass(frozen=True)
class Engine:
    """A plan that may be run: its checked bytes, its sidecar, and the library that reads it."""

    plan: bytes
    record: EngineRecord
    library: Library


def choose_engine(path: Path, library: str = AUTO) -> Engine:
    """The engine of a network file.

    Args:
        path: of a ``.plan``, or of an ONNX file ``ARTIFACT/models/NAME.onnx``, whose plans are looked for in
            ``ARTIFACT/evidence/engines``.
        library: flavour to run with; "auto": the one that built the plan.

    Raises:
        ArtifactError: without a plan, or when the plan, its sidecar, the ONNX file and the library do not belong together.
        MissingExtraError: when the library that built the plan is not installed.
    """
    if path.suffix == PLAN:
        return _checked(path, network=_network_of(path), library=library)
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist or is no file", expected="an ONNX file of an artifact, or a .plan")
    folder = engines_folder(path.parent.parent / EVIDENCE)
    plans = sorted(folder.glob(f"*{PLAN}")) if folder.is_dir() else []
    refusals: list[str] = []
    for plan in plans:
        try:
            if read_record(plan).request.onnx == f"{path.parent.name}/{path.name}":
                return _checked(plan, network=path, library=library)
        except UserError as error:
            refusals.append(error.found)
    reason = "; ".join(refusals) or f"{folder} holds none for it"
    raise ArtifactError(
        f"there is no engine to run for {path}: {reason}",
        expected="a plan built from this file by the installed version of TensorRT",
        remedy=f"build one: dropclass engine {path.parent.parent}",
    )


def _network_of(plan: Path) -> Path | None:
    """The ONNX file beside which a plan is cached; None for a plan that lies elsewhere (``--evidence DIR``)."""
    record = read_record(plan)
    artifact = plan.absolute().parent.parent.parent
    network = artifact / record.request.onnx
    return network if network.is_file() and network.parent.parent == artifact else None


def _checked(plan: Path, *, network: Path | None, library: str) -> Engine:
    record = read_record(plan)
    request = record.request
    if network is not None and sha256_of(network) != request.onnx_sha256:
        raise ArtifactError(f"{plan.name} was built from another {request.onnx}", remedy=_REMEDY)
    if library not in (AUTO, request.library):
        raise ArtifactError(f"{plan.name} was built by {request.library}, not by {library}", remedy=_REMEDY)
    content = read_plan(plan, record)
    found = import_tensorrt(request.library)
    if found.version != request.library_version:
        raise ArtifactError(
            f"{plan.name} was built by {request.library} {request.library_version} and {found.version} is installed",
            expected="the same version: a plan is read by no other",
            remedy=_REMEDY,
        )
    return Engine(content, record, found)


_REMEDY = "build it again: dropclass engine ARTIFACT"
