"""``build_engine``: a plan and its sidecar beside the ONNX file, or the ones that are there when they still hold."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from dropclass_deploy.core.errors import ArtifactError, DropclassError, UserError
from dropclass_deploy.core.files import atomic_path
from dropclass_deploy.core.model_files import DENSE, model_file
from dropclass_deploy.core.progress import Reporter, Silent
from dropclass_deploy.export.engines.network import Definition, check_mask_io, parse_network
from dropclass_deploy.export.engines.options import EngineOptions, resolve_profile
from dropclass_deploy.serving.artifact import open_artifact
from dropclass_deploy.serving.evidence import check_writable, write_evidence
from dropclass_deploy.serving.network_file import network_file
from dropclass_deploy.serving.runtimes.onnx_file.graph_io import read_graph_io
from dropclass_deploy.serving.runtimes.onnx_file.graph_precision import read_precision
from dropclass_deploy.serving.runtimes.tensorrt_native.built_here import TRUST, remember, was_built_here
from dropclass_deploy.serving.runtimes.tensorrt_native.cuda_memory import Cuda
from dropclass_deploy.serving.runtimes.tensorrt_native.engine_record import (
    EngineRecord,
    EngineRequest,
    Tensor,
    engines_folder,
    plan_name,
    read_plan,
    read_record,
    record_path,
)
from dropclass_deploy.serving.runtimes.tensorrt_native.tensorrt_library import Library, import_tensorrt

EVIDENCE_OPTION = "--evidence"


@dataclass(frozen=True)
class EngineResult:
    """An engine on disk.

    Attributes:
        plan: its file; the sidecar lies beside it.
        record: what the sidecar says.
        size_mib: of the plan.
        reused: whether it was there already, with everything equal.
    """

    plan: Path
    record: EngineRecord
    size_mib: float
    reused: bool

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        content = {"plan": str(self.plan), "size_mib": round(self.size_mib, 3), "reused": self.reused}
        return content | self.record.model_dump(mode="json", exclude={"metadata"})


def build_engine(
    artifact: str | Path, options: EngineOptions | None = None, reporter: Reporter | None = None
) -> EngineResult:
    """Build the engine of an artifact's dense mask file, or find that it is built.

    The network is strongly typed: precision is what the ONNX file says, and nothing is converted. Inputs and outputs are
    read from the network definition before anything is built.

    Args:
        artifact: folder; every file in its manifest is checked first.
        options: precision, library, GPUs, shapes.
        reporter: told what is done.

    Raises:
        UserError: for a mistake in the options, or a folder that cannot be written.
        ArtifactError: when the artifact lacks the file, or serving or TensorRT cannot take it.
        MissingExtraError: when TensorRT is not installed.
    """
    options, reporter = options or EngineOptions(), reporter or Silent()
    opened = open_artifact(artifact)
    network, name = network_file(opened, DENSE, options.precision), model_file(DENSE, options.precision)
    library = import_tensorrt(options.library, ahead_of_time=bool(options.compute_capabilities))
    declared = read_graph_io(network)
    profile = resolve_profile(check_mask_io(network, declared), options, opened.preprocess.seen_size)
    request = EngineRequest(
        library=library.flavour,
        library_version=library.version,
        compute_capabilities=_capabilities(library, options.compute_capabilities),
        onnx=name,
        onnx_sha256=opened.manifest.files[name],
        precision=_checked_precision(network, options.precision),
        tf32=options.tf32,
        workspace_mib=options.workspace_mib,
        profile=profile,
    )
    folder = engines_folder(options.evidence or opened.evidence)
    plan = folder / plan_name(options.precision, request)
    found = _reusable(plan, request)
    if found is not None:
        reporter.note(f"{plan} is this engine already: nothing to build")
        return EngineResult(plan, found, plan.stat().st_size / 2**20, reused=True)
    check_writable(plan, EVIDENCE_OPTION)
    definition = parse_network(network, library, declared)
    reporter.note(f"{', '.join(map(str, definition.inputs))} → {', '.join(map(str, definition.outputs))}")
    with reporter.phase(f"building {plan.name}"):
        result = _build(plan, definition, request, declared.metadata)
    if not remember(result.record):
        reporter.note(f"no cache folder of your own to remember the build in: {TRUST}")
    return result


def _checked_precision(network: Path, asked: str) -> str:
    """The precision in the graph; a float32 file under another name (or the reverse) is no engine anybody asked for."""
    found = read_precision(network)
    if (found == "fp32") != (asked == "fp32"):
        raise ArtifactError(f"{network} computes in {found}", expected=f"{asked}, as its name says")
    return found


def _capabilities(library: Library, asked: tuple[str, ...]) -> tuple[str, ...]:
    if asked and library.flavour == "tensorrt":
        raise UserError(
            "tensorrt builds for the GPU of this machine only",
            remedy="leave --compute-capability out, or install tensorrt-rtx",
        )
    if asked:
        return tuple(sorted(asked, key=lambda text: [int(part) for part in text.split(".")]))
    try:
        return (Cuda(library.flavour).compute_capability(),)
    except DropclassError:
        if library.flavour == "tensorrt":
            raise
        return ()  # no GPU here: TensorRT-RTX's own set, Ampere and later


def _reusable(plan: Path, request: EngineRequest) -> EngineRecord | None:
    try:
        record = read_record(plan)
        fits = record.request == request and was_built_here(record)
        return record if fits and read_plan(plan, record) else None
    except ArtifactError:
        return None


def _build(plan: Path, definition: Definition, request: EngineRequest, metadata: dict[str, str]) -> EngineResult:
    started = perf_counter()
    content = definition.builder.build_serialized_network(definition.network, build_config(definition, request))
    if content is None:
        raise ArtifactError(
            f"{request.library} {request.library_version} built no engine from {request.onnx}: "
            f"{definition.messages.one_line('no reason given')}"
        )
    view = memoryview(content)
    record = EngineRecord(
        request=request,
        plan_sha256=hashlib.sha256(view).hexdigest(),
        inputs=tuple(map(Tensor.of, definition.inputs)),
        outputs=tuple(map(Tensor.of, definition.outputs)),
        metadata=metadata,
        build_s=round(perf_counter() - started, 3),
    )
    # The plan first: with the old sidecar it is refused and rebuilt, never taken for another.
    with atomic_path(plan) as temporary:
        temporary.write_bytes(view)
    write_evidence(record_path(plan), record.model_dump(mode="json"), EVIDENCE_OPTION)
    return EngineResult(plan, record, view.nbytes / 2**20, reused=False)


def build_config(definition: Definition, request: EngineRequest) -> Any:
    """The builder's configuration for a request. Raises UserError when the library refuses a GPU or the profile."""
    library, builder = definition.library.module, definition.builder
    config = builder.create_builder_config()
    if not request.tf32:
        config.clear_flag(library.BuilderFlag.TF32)
    if request.workspace_mib is not None:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, request.workspace_mib * 2**20)
    if request.library == "tensorrt-rtx" and request.compute_capabilities:
        config.num_compute_capabilities = len(request.compute_capabilities)
        for index, capability in enumerate(request.compute_capabilities):
            chip = getattr(library.ComputeCapability, f"SM{capability.replace('.', '')}", None)
            if chip is None or not config.set_compute_capability(chip, index):
                raise _refused(definition, f"compute capability {capability}")
    if request.profile is not None:
        profile, ends = builder.create_optimization_profile(), request.profile
        name = definition.inputs[0].name
        profile.set_shape(name, (*ends.min, 3), (*ends.opt, 3), (*ends.max, 3))
        if config.add_optimization_profile(profile) < 0:
            raise _refused(definition, f"the profile {ends.min}, {ends.opt}, {ends.max}")
    return config


def _refused(definition: Definition, what: str) -> UserError:
    return UserError(f"{definition.library.flavour} refused {what}: {definition.messages.one_line('no reason given')}")
