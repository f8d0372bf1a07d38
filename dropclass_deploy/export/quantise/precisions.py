"""Lower precisions of an artifact that is being written: each is made, put through the gate, and kept or taken out again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from dropclass_deploy.core.cache import cache_folder
from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.manifest import EVIDENCE
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels, resize_image
from dropclass_deploy.export.graphs.core_and_tail import join_tail, split_tail
from dropclass_deploy.export.graphs.rounded import rounded_like_float16
from dropclass_deploy.export.preparation import Job
from dropclass_deploy.export.quantise.curve import write_curve
from dropclass_deploy.export.quantise.evaluator import Evaluator
from dropclass_deploy.export.quantise.gating import Gate, why
from dropclass_deploy.export.quantise.half import halved
from dropclass_deploy.export.quantise.int8 import PROBE_IMAGES, Int8, Tried, calibration_batches
from dropclass_deploy.export.quantise.mixed import Search
from dropclass_deploy.export.quantise.outcome import PASS, Outcome
from dropclass_deploy.export.quantise.requirements import network_preprocess, probe_images, quantised_runtime
from dropclass_deploy.export.to_onnx import Traced
from dropclass_deploy.serving.parity import ParityReport
from dropclass_deploy.serving.parity.rule import ABSENT, MIN_IMAGES, MIN_PIXELS


def add_precisions(folder: Path, job: Job, traced: Traced, metadata: Mapping[str, str], reporter: Reporter) -> Outcome:
    """Add the lower precisions that the options ask for to a complete artifact.

    Args:
        folder: the artifact, still hidden from readers.
        job: with the gate's data.
        traced: the float32 network.
        metadata: ``metadata_props``.
        reporter: told about the phases.

    Returns:
        What passed, and a sentence for each precision that the gate refused or that could not be made; the reports stay
        in ``evidence/``. What is there already is not lost for it.
    """
    refusals: list[str] = []
    gate = Gate(folder, job, traced, metadata, reporter)
    for precision in job.options.precisions:
        if precision == "fp32":
            continue
        try:
            refusal = _fp16(gate, reporter) if precision == "fp16" else _Integer(gate, reporter).add(precision)
        except UserError as error:
            for name in {precision, "mixed"} - {item.precision for item in gate.shipped}:
                gate.remove(name)
            refusal = f"{precision} cannot be made: {error}"
        if refusal:
            refusals.append(refusal)
    return Outcome(tuple(gate.shipped), tuple(refusals))


def _fp16(gate: Gate, reporter: Reporter) -> str:
    """Float16: the file itself on ONNX Runtime, and float16 arithmetic as a GPU does it, imitated."""
    core, tail = split_tail(gate.traced.graph)
    with reporter.phase("float16"):
        gate.write("fp16", join_tail(halved(core), tail), {"converter": "onnxconverter-common"})
    reports = {head: gate.judge("fp16", "onnxruntime", head) for head in gate.heads("fp16")}
    # ONNX Runtime computes float16 graphs in float32 on most CPUs: what overflows on a GPU does not overflow there.
    imitated = join_tail(rounded_like_float16(core), tail)
    reports["imitated"] = gate.judge_imitation(imitated, "fp16.imitated")
    return gate.settle("fp16", "onnxconverter-common", "onnxruntime", reports)


class _Integer:
    """INT8, or INT8 with some blocks in float32."""

    def __init__(self, gate: Gate, reporter: Reporter) -> None:
        self._gate, self._job, self._reporter = gate, gate.job, reporter
        minutes = self._job.options.budget_minutes
        self._deadline = None if minutes is None else monotonic() + 60 * minutes

    def add(self, precision: str) -> str:
        """INT8 where it passes; else, or when it is asked for, mixed precision. Why not, or ""."""
        images = probe_images(self._job, PROBE_IMAGES, self._reporter)
        preprocess = network_preprocess(self._job.source.preprocess)
        batches = calibration_batches(images, preprocess, self._job.options.shape[0] or 1)
        with self._evaluator(images) as evaluator:
            maker = Int8(self._gate.traced.graph, evaluator, batches)
            tried = maker.best(self._reporter, self._deadline)
            facts = {"method": tried.method, "calibration_images": len(batches), "probe_images": len(images)}
            alone = None if precision == "mixed" else self._alone(maker, tried, evaluator, facts)
            if alone is not None and alone.verdict == PASS:
                return ""
            return self._mixed(maker, tried, evaluator, facts, alone)

    def _alone(self, maker: Int8, tried: Tried, evaluator: Evaluator, facts: Mapping[str, Any]) -> ParityReport:
        """The gate on INT8 without exceptions; its files stay when it passes."""
        self._gate.write("int8", maker.network_of(tried), facts)
        reports = self._judged("int8", evaluator)
        refusal = self._gate.settle("int8", tried.method, evaluator.runtime, reports)
        report = next((item for item in reports.values() if item.verdict != PASS), reports["dense"])
        if refusal:
            self._reporter.note(
                f"INT8 alone is refused ({why(report)}): looking for the blocks that have to stay float32"
            )
        return report

    def _judged(self, precision: str, evaluator: Evaluator) -> dict[str, ParityReport]:
        """Reports by head; the second head is not asked where the first is refused already."""
        reports: dict[str, ParityReport] = {}
        for head in self._gate.heads(precision):
            reports[head] = self._gate.judge(precision, evaluator.runtime, head)
            if reports[head].verdict != PASS:
                break
        return reports

    def _mixed(
        self, maker: Int8, tried: Tried, evaluator: Evaluator, facts: Mapping[str, Any], alone: ParityReport | None
    ) -> str:
        search = maker.search(tried, self._deadline)
        with self._reporter.phase("each block's effect on each class") as advance:
            point = search.run(advance)
        if not point.kept and alone is None:
            alone = self._alone(maker, tried, evaluator, facts)
            if alone.verdict == PASS:
                self._reporter.note("INT8 passes as it is: no block has to stay in float32")
                return ""
        reports = {"dense": alone} if not point.kept and alone is not None else {}
        gates: list[dict[str, Any]] = []
        while True:
            if point.kept:
                self._gate.write(
                    "mixed", maker.network_of(tried, point.kept), {**facts, "float32_blocks": list(point.kept)}
                )
                reports = self._judged("mixed", evaluator)
            last = list(reports.values())[-1]
            gates.append({"kept_in_float32": list(point.kept), "verdict": last.verdict, "reasons": list(last.reasons)})
            class_name = None if last.verdict == PASS else mendable_class(last, self._job.options.allow_insufficient)
            following = None if class_name is None else search.extended(point, class_name)
            if following is None:
                break
            point = following
        self._write_curve(search, gates, maker, tried, evaluator)
        made_by = f"{tried.method}; float32: {', '.join(point.kept)}"
        more_time = " (the time given was up; --budget-minutes gives more)" if search.cut_short else ""
        if not point.kept:
            return f"int8 is left out, verdict {last.verdict}: {why(last)}; no block was found that mends it{more_time}"
        refusal = self._gate.settle("mixed", made_by, evaluator.runtime, reports)
        return f"{refusal.replace('mixed is', 'int8 and mixed are', 1)}{more_time}" if refusal else ""

    def _write_curve(
        self, search: Search, gates: list[dict[str, Any]], maker: Int8, tried: Tried, evaluator: Evaluator
    ) -> None:
        with self._reporter.phase("timing the trade curve"):
            write_curve(
                self._gate.folder / EVIDENCE,
                search,
                gates,
                lambda kept: maker.network_of(tried, kept),
                self._gate.traced.graph,
                evaluator,
                self._timed_image(),
            )

    def _timed_image(self) -> Pixels:
        preprocess, dataset = self._job.source.preprocess, self._job.dataset
        size = preprocess.window.size if preprocess.window else preprocess.size
        image = np.zeros((64, 64, 3), np.uint8) if dataset is None else dataset.image(0)
        return image if size is None else resize_image(image, size)

    @contextmanager
    def _evaluator(self, images: Dataset) -> Iterator[Evaluator]:
        source = self._job.source
        with tempfile.TemporaryDirectory(prefix="dropclass-search-") as scrap:
            with self._reporter.phase("the float32 network on the probe images"):
                made = Evaluator(
                    images,
                    self._gate.traced.graph,
                    source.classes,
                    network_preprocess(source.preprocess),
                    quantised_runtime(),
                    cache_folder("precision") or Path(scrap),
                    allow_insufficient=self._job.options.allow_insufficient,
                )
            yield made


def mendable_class(report: ParityReport, allowed: tuple[str, ...]) -> str | None:
    """The class furthest beyond its margin, of those that a more exact network could bring back; None without one.

    Too few images, or a report that fails for another reason than a class's interval, are not mended by any block.
    """
    found = [
        item
        for item in report.classes
        if item.verdict not in (PASS, ABSENT)
        and item.figures.images >= MIN_IMAGES
        and item.figures.pixels >= MIN_PIXELS
        and not (item.verdict == "insufficient" and item.figures.name in allowed)
    ]
    if not found:
        return None
    return min(found, key=lambda item: item.figures.interval[0] + item.margin).figures.name
