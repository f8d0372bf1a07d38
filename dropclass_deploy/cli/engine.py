"""``dropclass engine``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dropclass_deploy.cli.console import ConsoleReporter, print_json, print_line
from dropclass_deploy.cli.options import Artifact, Json
from dropclass_deploy.cli.torch_room import torch_room
from dropclass_deploy.core.model_files import model_file
from dropclass_deploy.serving.runtimes.tensorrt_native.engine_choice import trust_engine


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Example: dropclass engine artifacts/camvid --precision fp16 --compute-capability 8.9 --shape 1x512x1024"
    )(engine)


def engine(
    artifact: Artifact,
    precision: Annotated[str, typer.Option("--precision", help="Of the ONNX file to build from.")] = "fp32",
    library: Annotated[str, typer.Option("--library", help="tensorrt, tensorrt-rtx or auto.")] = "auto",
    capability: Annotated[
        list[str] | None,
        typer.Option(
            "--compute-capability", metavar="X.Y", help="Of a GPU to build for; default this machine's. Repeatable."
        ),
    ] = None,
    shape: Annotated[
        str | None, typer.Option("--shape", metavar="NxHxW", help="Image shape of a dynamic network; batches 1 to N.")
    ] = None,
    profile: Annotated[
        tuple[str, str, str] | None,
        typer.Option("--profile", metavar="MIN OPT MAX", help="Smallest, best and largest shape, each NxHxW."),
    ] = None,
    workspace: Annotated[
        int | None, typer.Option("--workspace-mib", min=1, help="Limit of scratch memory, MiB.")
    ] = None,
    tf32: Annotated[bool, typer.Option("--tf32", help="Let float32 convolutions round to TF32.")] = False,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", help="Folder for engines/; default in the artifact.")
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option(
            "--trust", metavar="PLAN", help="Build nothing: run this plan from elsewhere as your own; it is code."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build a TensorRT engine from an artifact's ONNX file, also for a GPU that is not in this machine."""
    if trust is not None:
        record = trust_engine(artifact, trust)
        if as_json:
            print_json({"plan": str(trust), "trusted": True} | record.model_dump(mode="json", exclude={"metadata"}))
        else:
            print_line(f"engine: {trust} is trusted on this machine")
        return
    with torch_room("export"):
        from dropclass_deploy.export.engines import EngineOptions, build_engine
        from dropclass_deploy.export.engines.options import make_profile, parse_size

    options = EngineOptions(
        library=library,
        precision=precision,
        compute_capabilities=tuple(capability or ()),
        shape=None if shape is None else parse_size(shape),
        profile=None if profile is None else make_profile(*map(parse_size, profile)),
        workspace_mib=workspace,
        tf32=tf32,
        evidence=evidence,
    )
    result = build_engine(artifact, options, ConsoleReporter())
    if as_json:
        print_json(result.to_json())
        return
    request = result.record.request
    chips = ", ".join(request.compute_capabilities) or "the library's own set"
    print_line(f"  {request.library} {request.library_version}  {request.arithmetic}  for {chips}")
    print_line(
        f"  {result.size_mib:.1f} MiB, built in {result.record.build_s:.1f} s" + (", reused" if result.reused else "")
    )
    print_line(
        f"engine: {result.plan}   next, on the GPU: dropclass verify --reference {artifact / model_file()} "
        f"--candidate {result.plan} --data FORMAT:PATH"
    )
