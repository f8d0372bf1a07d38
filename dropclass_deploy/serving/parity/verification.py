"""``verify``: the per-class parity gate."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.serving.artifact import open_artifact
from dropclass_deploy.serving.evidence import check_writable, write_evidence
from dropclass_deploy.serving.parity.artifact_comparison import artifact_comparison
from dropclass_deploy.serving.parity.comparison import compare
from dropclass_deploy.serving.parity.file_comparison import file_comparison
from dropclass_deploy.serving.parity.options import VerifyOptions
from dropclass_deploy.serving.parity.report import PARITY_FILE, ParityReport
from dropclass_deploy.serving.parity.sides import MaskFunction
from dropclass_deploy.serving.runtimes import open_runtime
from dropclass_deploy.serving.segmenter import Segmenter

EVIDENCE_OPTION = "--evidence"


def verify(
    artifact: str | Path | None = None,
    *,
    data: str | Dataset,
    split: str = "val",
    reference: str | Path | None = None,
    candidate: str | Path | None = None,
    reference_masks: MaskFunction | None = None,
    evidence: str | Path | None = None,
    options: VerifyOptions | None = None,
) -> ParityReport:
    """Compare class by class, decide, and write ``parity.json``.

    Either an artifact against the PyTorch network that it came from, or two ONNX files against one another.

    Args:
        artifact: folder; its masks on these data were stored at export, or ``reference_masks`` makes them.
        data: ``FORMAT:PATH``, or an opened data set (``split`` is then its own).
        split: of the data.
        reference: an ONNX file, instead of an artifact.
        candidate: an ONNX file, instead of an artifact.
        reference_masks: image uint8 (H, W, 3) RGB → class ids (H, W), asked where the artifact stores no mask.
        evidence: folder for ``parity.json``; by default the artifact's ``evidence/``, and nowhere for two ONNX files.
        options: seed, limit, allowed classes and the rest.

    Returns:
        The report. A refusal is a verdict, not an exception.

    Raises:
        UserError: for a mistake of the caller: ArtifactError for an artifact that is broken, changed or without reference
            masks; DataError for data that do not fit; else for contradicting arguments or an unwritable folder.
    """
    options = options or VerifyOptions()
    _check_arguments(artifact, reference, candidate)
    dataset = open_dataset(data, split) if isinstance(data, str) else data
    if reference is not None and candidate is not None:
        return _verify_files((Path(reference), Path(candidate)), dataset, evidence, options)
    return _verify_artifact(Path(artifact or ""), dataset, reference_masks, evidence, options)


def _check_arguments(artifact: str | Path | None, reference: str | Path | None, candidate: str | Path | None) -> None:
    files = (reference is not None) + (candidate is not None)
    if files != (0 if artifact is not None else 2):
        raise UserError(
            f"{'an' if artifact is not None else 'no'} artifact and {files} of --reference and --candidate were named",
            expected="an artifact alone, or both files and no artifact",
        )


def _verify_artifact(
    path: Path,
    dataset: Dataset,
    reference_masks: MaskFunction | None,
    evidence: str | Path | None,
    options: VerifyOptions,
) -> ParityReport:
    artifact = open_artifact(path)
    target = (Path(evidence) if evidence is not None else artifact.evidence) / options.evidence_file
    check_writable(target, EVIDENCE_OPTION)
    # A provider that fell back is for the gate to refuse, with all figures, not a reason to stop.
    with Segmenter(
        artifact,
        options.runtime,
        options.threads,
        precision=options.precision,
        head=options.head,
        allow_fallback=True,
    ) as segmenter:
        comparison = artifact_comparison(artifact, segmenter, dataset, reference_masks, options)
        report = compare(comparison, dataset, options)
    write_evidence(target, report.to_json(), EVIDENCE_OPTION)
    return report


def _verify_files(
    paths: tuple[Path, Path], dataset: Dataset, evidence: str | Path | None, options: VerifyOptions
) -> ParityReport:
    target = None if evidence is None else Path(evidence) / PARITY_FILE
    if target is not None:
        check_writable(target, EVIDENCE_OPTION)
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(open_runtime(path, options.runtime, options.threads, allow_fallback=True))
            for path in paths
        )
        report = compare(file_comparison(paths, (first, second), dataset, options), dataset, options)
    if target is not None:
        write_evidence(target, report.to_json(), EVIDENCE_OPTION)
    return report
