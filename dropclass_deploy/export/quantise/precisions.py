"""Lower precisions of an artifact that is being written: each is made, put through the gate, and kept or taken out again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from dropclass_deploy.core.cache import cache_folder
from dropclass_deploy.core.errors import DataError, UserError
from dropclass_deploy.core.manifest import EVIDENCE, hash_files, read_manifest, write_manifest
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import resize_image
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.export.graphs.core_and_tail import join_tail, split_tail
from dropclass_deploy.export.network_files import remove_network, write_network
from dropclass_deploy.export.preparation import Job
from dropclass_deploy.export.quantise.calibration import Chosen, choose_images
from dropclass_deploy.export.quantise.curve import write_curve
from dropclass_deploy.export.quantise.evaluator import Evaluator
from dropclass_deploy.export.quantise.half import halved
from dropclass_deploy.export.quantise.int8 import PROBE_IMAGES, Int8, Tried, calibration_batches
from dropclass_deploy.export.quantise.mixed import Point, Search
from dropclass_deploy.export.quantise.outcome import Outcome, Shipped
from dropclass_deploy.export.to_onnx import Traced
from dropclass_deploy.serving.parity import ParityReport, VerifyOptions, verify

PASS = "pass"


def add_precisions(folder: Path, job: Job, traced: Traced, metadata: Mapping[str, str], reporter: Reporter) -> Outcome:
    """Add the lower precisions that the options ask for to a complete artifact.

    Args:
        folder: the artifact, still hidden from readers.
        job: with the gate's data.
        traced: the float32 network.
        metadata: ``metadata_props``.
        reporter: told about the phases.

    Returns:
        What passed, and a sentence for each precision that the gate refused; its report stays in ``evidence/``.

    Raises:
        ModelError: when the network cannot be converted. MissingExtraError: without a library that is needed.
    """
    shipped: list[Shipped] = []
    refusals: list[str] = []
    for precision in job.options.precisions:
        if precision == "fp32":
            continue
        adding = _Adding(folder, job, traced, metadata, reporter, shipped)
        refusal = adding.fp16() if precision == "fp16" else adding.int8(searching=precision == "mixed")
        if refusal:
            refusals.append(refusal)
    return Outcome(tuple(shipped), tuple(refusals))


class _Adding:
    """One precision being added."""

    def __init__(
        self,
        folder: Path,
        job: Job,
        traced: Traced,
        metadata: Mapping[str, str],
        reporter: Reporter,
        shipped: list[Shipped],
    ) -> None:
        self._folder, self._job, self._traced = folder, job, traced
        self._metadata, self._reporter, self._shipped = metadata, reporter, shipped
        minutes = job.options.budget_minutes
        self._deadline = None if minutes is None else monotonic() + 60 * minutes

    def fp16(self) -> str:
        """Float16, judged on ONNX Runtime, whose CPU kernels compute in float16 too."""
        core, tail = split_tail(self._traced.graph)
        with self._reporter.phase("float16"):
            network = join_tail(halved(core), tail)
        report = self._gated(
            "fp16", replace(self._traced, graph=network), "onnxruntime", {"converter": "onnxconverter-common"}
        )
        return self._settled("fp16", report, "onnxconverter-common", "onnxruntime")

    def int8(self, *, searching: bool) -> str:
        """INT8 where it passes; else, or when it is asked for, mixed precision."""
        images = _probe_images(self._job, self._reporter)
        with self._evaluator(images) as evaluator:
            maker = Int8(self._traced.graph, evaluator, self._batches(images))
            tried = maker.best(self._reporter, self._deadline)
            facts = {"method": tried.method, "calibration_images": min(len(images), 32), "probe_images": len(images)}
            if not searching:
                network = replace(self._traced, graph=maker.network_of(tried))
                report = self._gated("int8", network, evaluator.runtime, facts)
                refusal = self._settled("int8", report, tried.method, evaluator.runtime)
                if not refusal:
                    return ""
                self._reporter.note(
                    f"INT8 alone is refused ({_why(report)}): looking for the blocks that have to stay float32"
                )
            return self._mixed(maker, tried, evaluator, facts)

    def _mixed(self, maker: Int8, tried: Tried, evaluator: Evaluator, facts: dict[str, Any]) -> str:
        search = maker.search(tried, self._deadline)
        with self._reporter.phase("each block's effect on each class") as advance:
            point: Point = search.run(advance)
        gates: list[dict[str, Any]] = []
        while True:
            told = {**facts, "float32_blocks": list(point.kept)}
            network = replace(self._traced, graph=maker.network_of(tried, point.kept))
            report = self._gated("mixed", network, evaluator.runtime, told)
            gates.append(
                {"kept_in_float32": list(point.kept), "verdict": report.verdict, "reasons": list(report.reasons)}
            )
            following = None if report.verdict == PASS else search.extended(point, _worst_name(report))
            if following is None:
                break
            point = following
        self._write_curve(search, gates, maker, tried, evaluator)
        made_by = f"{tried.method}; float32: {', '.join(point.kept) or 'nothing'}"
        refusal = self._settled("mixed", report, made_by, evaluator.runtime)
        return refusal + (
            " (the time given was up; --budget-minutes gives more)" if refusal and search.cut_short else ""
        )

    def _write_curve(
        self, search: Search, gates: list[dict[str, Any]], maker: Int8, tried: Tried, evaluator: Evaluator
    ) -> None:
        job = self._job
        image = job.dataset.image(0) if job.dataset is not None else np.zeros((64, 64, 3), np.uint8)
        size = job.source.preprocess.size
        with self._reporter.phase("timing the trade curve"):
            write_curve(
                self._folder / EVIDENCE,
                search,
                gates,
                lambda kept: maker.network_of(tried, kept),
                self._traced.graph,
                evaluator,
                image if size is None else resize_image(image, size),
            )

    @contextmanager
    def _evaluator(self, images: Chosen) -> Iterator[Evaluator]:
        source, runtime = self._job.source, quantised_runtime()
        with tempfile.TemporaryDirectory(prefix="dropclass-search-") as scrap:
            cache = cache_folder("precision") or Path(scrap)
            with self._reporter.phase("the float32 network on the probe images"):
                made = Evaluator(images, self._traced.graph, source.classes, source.preprocess, runtime, cache)
            yield made

    def _batches(self, images: Chosen) -> list[Any]:
        return calibration_batches(images, self._job.source.preprocess, self._job.options.shape[0] or 1)

    def _gated(self, precision: str, network: Traced, runtime: str, facts: dict[str, Any]) -> ParityReport:
        """The files written and hashed, and the gate's report on them."""
        job = self._job
        metadata = {**self._metadata, "precision": json.dumps({"precision": precision, **facts}, ensure_ascii=False)}
        write_network(self._folder, network, precision, job.source.preprocess, metadata, job.options.mask_format)
        self._hash()
        with self._reporter.phase(f"the gate on {precision}, {runtime}") as advance:
            options = VerifyOptions(
                runtime=runtime,
                precision=precision,
                allow_insufficient=job.options.allow_insufficient,
                limit=job.options.reference_limit,
                progress=advance,
            )
            return verify(self._folder, data=_gate_data(job), options=options)

    def _settled(self, precision: str, report: ParityReport, made_by: str, runtime: str) -> str:
        """Keep the files of a precision that passed; take out those of another and say why."""
        if report.verdict == PASS:
            self._shipped.append(Shipped(precision, made_by, runtime, report))
            self._reporter.note(f"{precision} passes the gate on {report.images} images")
            return ""
        remove_network(self._folder, precision)
        self._hash()
        return f"{precision} is left out, verdict {report.verdict}: {_why(report)}"

    def _hash(self) -> None:
        manifest = read_manifest(self._folder)
        write_manifest(self._folder, manifest.model_copy(update={"files": hash_files(self._folder)}))


def check_precisions(job: Job) -> None:
    """Refuse, before any long work, lower precisions without the data that judge them.

    Raises:
        UserError: when there are no data, or no reference masks are to be stored. DataError: when the calibration split
            cannot be opened.
    """
    lower = [name for name in job.options.precisions if name != "fp32"]
    if not lower:
        return
    if job.dataset is None or job.options.reference_limit == 0:
        raise UserError(
            f"precision {lower[0]} is asked for without {'data' if job.dataset is None else 'reference masks'}",
            expected="labelled images for the gate: no precision is shipped that it did not judge",
            remedy="name them with --data FORMAT:PATH",
        )
    if set(lower) & {"int8", "mixed"}:
        _calibration_data(job)


def quantised_runtime() -> str:
    """The engine that INT8 is made for on this machine: OpenVINO where it is installed."""
    return "openvino" if find_spec("openvino") is not None else "onnxruntime"


def _calibration_data(job: Job) -> Dataset:
    given = job.options.calibration_data
    if given is not None:
        return given
    spec = job.options.data if isinstance(job.options.data, str) else job.source.data
    if spec is None:
        raise UserError(
            "INT8 is asked for with a data set in memory and no calibration data",
            expected="ExportOptions(calibration_data=…), labelled images that the gate does not see",
        )
    try:
        return open_dataset(spec, job.options.calibration_split)
    except DataError as error:
        raise DataError(
            f"the split {job.options.calibration_split!r} that calibrates INT8 cannot be opened: {error.found}",
            expected=error.expected,
            remedy="name another with --calibration-split",
        ) from error


def _probe_images(job: Job, reporter: Reporter) -> Chosen:
    with reporter.phase("choosing calibration images: every class, the rare ones first") as advance:
        return choose_images(_calibration_data(job), PROBE_IMAGES, advance)


def _gate_data(job: Job) -> Dataset:
    if job.dataset is None:
        raise UserError("there are no data for the gate", remedy="name them with --data FORMAT:PATH")
    return job.dataset


def _why(report: ParityReport) -> str:
    return "; ".join(report.reasons[:3]) or report.verdict


def _worst_name(report: ParityReport) -> str:
    """The class that the gate was least content with: the lowest end of an interval beyond its margin."""
    found = [item for item in report.classes if item.verdict not in ("pass", "absent")] or list(report.classes)
    return min(found, key=lambda item: np.nan_to_num(item.figures.interval[0]) + item.margin).figures.name
