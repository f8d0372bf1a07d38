"""A network in lower precision, written into the artifact and put through the gate; what does not pass is taken out again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.files import write_json
from dropclass_deploy.core.manifest import EVIDENCE, hash_files, read_manifest, write_manifest
from dropclass_deploy.core.model_files import DENSE, LOGITS, SPARSE, model_file
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.export import graphs
from dropclass_deploy.export.graphs import Model
from dropclass_deploy.export.network_files import remove_network, write_network
from dropclass_deploy.export.preparation import Job
from dropclass_deploy.export.quantise.outcome import PASS, Judged, Shipped
from dropclass_deploy.export.to_onnx import Traced
from dropclass_deploy.serving.parity import ParityReport, VerifyOptions, verify

PORTABLE = "onnxruntime"
"""The engine that everybody has."""


class Gate:
    """The gate of one artifact that is being written.

    Args:
        folder: the artifact, complete, still hidden from readers.
        job: with the gate's data.
        traced: the float32 network.
        metadata: ``metadata_props`` of the files.
        reporter: told about the phases.
    """

    def __init__(self, folder: Path, job: Job, traced: Traced, metadata: Mapping[str, str], reporter: Reporter) -> None:
        self.folder, self.job, self.traced = folder, job, traced
        self._metadata, self._reporter = metadata, reporter
        self.shipped: list[Shipped] = []

    def write(self, precision: str, network: Model, facts: Mapping[str, Any]) -> None:
        """The files of a precision, hashed into the manifest."""
        told = {"precision": precision, **facts}
        metadata = {**self._metadata, "precision": json.dumps(told, ensure_ascii=False)}
        traced = replace(self.traced, graph=network)
        write_network(
            self.folder, traced, precision, self.job.source.preprocess, metadata, self.job.options.mask_format
        )
        self._hash()

    def judge(self, precision: str, runtime: str, head: str = DENSE) -> ParityReport:
        """The gate's report on one file and engine; it stays in ``evidence/``."""
        with self._reporter.phase(f"the gate on {precision}, {head} head, {runtime}") as advance:
            options = VerifyOptions(
                **self._options(), runtime=runtime, precision=precision, head=head, progress=advance
            )
            return verify(self.folder, data=self._data(), options=options)

    def judge_imitation(self, network: Model, title: str) -> ParityReport:
        """The report on a float32 graph that imitates a precision, against the float32 file; kept under ``title``."""
        reference = self.folder / model_file(LOGITS)
        with (
            tempfile.TemporaryDirectory(prefix="dropclass-imitated-") as scrap,
            self._reporter.phase(f"the gate on {title}") as advance,
        ):
            candidate = Path(scrap) / "imitated.onnx"
            graphs.save(network, candidate, self._metadata, self.traced.opset)
            options = VerifyOptions(**self._options(), runtime=PORTABLE, progress=advance)
            report = verify(data=self._data(), reference=reference, candidate=candidate, options=options)
        write_json(self.folder / EVIDENCE / f"parity.{title}.json", report.to_json())
        return report

    def settle(self, precision: str, made_by: str, runtime: str, reports: Mapping[str, ParityReport]) -> str:
        """Keep the files when every report passes, and judge them on the portable engine too; else take them out.

        Args:
            precision: of the files.
            made_by: by which method.
            runtime: that ``reports`` come from.
            reports: by title, the one to be quoted first.

        Returns:
            Why it is left out, or "".
        """
        failed = next((report for report in reports.values() if report.verdict != PASS), None)
        if failed is not None:
            self.remove(precision)
            return f"{precision} is left out, verdict {failed.verdict}: {why(failed)}"
        first = next(iter(reports.values()))
        judged = [Judged(runtime, PASS)]
        if runtime != PORTABLE:
            judged.append(self._judged_elsewhere(precision))
        self.shipped.append(Shipped(precision, made_by, tuple(judged), first))
        self._reporter.note(f"{precision} passes the gate on {first.images} images ({runtime})")
        return ""

    def heads(self, precision: str) -> tuple[str, ...]:
        """Mask heads that the precision's files have."""
        return tuple(head for head in (DENSE, SPARSE) if (self.folder / model_file(head, precision)).exists())

    def remove(self, precision: str) -> None:
        """Take a precision's files out of the artifact."""
        remove_network(self.folder, precision)
        self._hash()

    def _judged_elsewhere(self, precision: str) -> Judged:
        """The verdict on the portable engine: a file may pass where it was made for and not run elsewhere."""
        try:
            report = self.judge(precision, PORTABLE)
        except UserError as error:
            self._reporter.note(f"{precision} does not run on {PORTABLE}: {error}")
            return Judged(PORTABLE, "cannot run it")
        if report.verdict != PASS:
            self._reporter.note(f"{precision} does not pass on {PORTABLE}: {why(report)}")
        return Judged(PORTABLE, report.verdict)

    def _options(self) -> dict[str, Any]:
        options = self.job.options
        return {"allow_insufficient": options.allow_insufficient, "limit": options.reference_limit}

    def _data(self) -> Dataset:
        if self.job.dataset is None:
            raise UserError("there are no data for the gate", remedy="name them with --data FORMAT:PATH")
        return self.job.dataset

    def _hash(self) -> None:
        manifest = read_manifest(self.folder)
        write_manifest(self.folder, manifest.model_copy(update={"files": hash_files(self.folder)}))


def why(report: ParityReport) -> str:
    """The first reasons of a verdict."""
    return "; ".join(report.reasons[:3]) or report.verdict
