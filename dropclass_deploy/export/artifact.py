"""The export pipeline: a run folder or a trained module in, a whole artifact folder out, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import GateRefusedError, ModelError, UserError
from dropclass_deploy.core.files import atomic_folder
from dropclass_deploy.core.manifest import EVIDENCE, MANIFEST
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.progress import Reporter, Silent
from dropclass_deploy.export.artifact_folder import write_artifact
from dropclass_deploy.export.options import ExportOptions
from dropclass_deploy.export.preparation import Job, prepared
from dropclass_deploy.export.quantise.requirements import check_precisions
from dropclass_deploy.export.replacement import check_replaceable
from dropclass_deploy.export.source import source_from_module, source_from_run
from dropclass_deploy.export.to_onnx import Traced, trace


def export_artifact(
    source: str | Path | nn.Module,
    output: str | Path,
    *,
    classes: ClassTable | Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
    name: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    options: ExportOptions | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Write an artifact folder from a run or from any trained module.

    The folder appears whole or not at all. A module is copied first: its mode, device, gradients and hooks stay as they
    are.

    Args:
        source: a run folder, or a network (N, 3, H, W) → logits (a tensor, ``dict["out"]`` or ``.logits``), at the
            input's size or smaller.
        output: the folder to write.
        classes: of a module: a ``ClassTable`` or the names in id order. A run knows its own.
        preprocess: of a module. A run knows its own.
        name: of a module's network, for the manifest; default its class name.
        provenance: of a module: JSON values that say where the weights come from.
        options: head, shape, opset, data and the rest.
        reporter: told about the phases.

    Returns:
        ``output`` as a path.

    Raises:
        UserError: for anything that the caller can mend, an existing output included (RunError, ModelError, DataError).
        GateRefusedError: when ONNX Runtime and torch disagree on the sample (nothing is written), or when the gate
            refuses a lower precision (the artifact stands without it, its report in ``evidence/``).
    """
    options, reporter, output = options or ExportOptions(), reporter or Silent(), Path(output)
    check_replaceable(output, overwrite=options.overwrite)
    if isinstance(source, nn.Module):
        if options.weights != "last":
            raise UserError(f"weights {options.weights!r} are asked of a module", expected="a run folder")
        origin = source_from_module(source, classes, preprocess, name, provenance, options.deploy_head)
    else:
        _refuse_module_arguments(classes=classes, preprocess=preprocess, name=name, provenance=provenance)
        origin = source_from_run(Path(source), options.deploy_head, options.weights)
    job = prepared(origin, options, output.resolve().name)
    check_precisions(job)
    with reporter.phase("tracing the network"):
        traced = trace(job.source.network, options.shape, options.opset)
    _check_classes(job, traced)
    with atomic_folder(output, overwrite=options.overwrite, marker=MANIFEST) as folder:
        refused = write_artifact(folder, job, traced, reporter)
        # Minutes may have passed, and this is the moment at which the old folder goes.
        check_replaceable(output, overwrite=options.overwrite)
    for note in job.notes:
        reporter.note(note)
    if refused:
        raise GateRefusedError(f"{output} is written, but {'; '.join(refused)}; reports: {output / EVIDENCE}")
    return output


def _refuse_module_arguments(**given: object) -> None:
    unused = [key for key, value in given.items() if value is not None]
    if unused:
        raise UserError(f"{unused[0]} is given beside a run folder", expected="a run knows its own; leave it out")


def _check_classes(job: Job, traced: Traced) -> None:
    if traced.num_classes != len(job.source.classes):
        raise ModelError(
            f"the model gives logits of {traced.num_classes} classes",
            expected=f"{len(job.source.classes)}, as the class table has",
        )
