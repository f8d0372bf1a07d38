"""Finding the fastest configuration that passes the gate: time all in turn, then judge from the fastest on."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import numpy as np

from dropclass_deploy.core.errors import GateRefusedError, UserError
from dropclass_deploy.core.model_files import model_file
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.serving.artifact import Artifact, open_artifact
from dropclass_deploy.serving.auto.choice import AUTO_FILE, DEFAULT, Configuration, machine
from dropclass_deploy.serving.auto.options import GPU_RUNTIMES, AutoOptions
from dropclass_deploy.serving.benchmark.environment import read_environment
from dropclass_deploy.serving.benchmark.interleaved import interleaved_ms
from dropclass_deploy.serving.evidence import check_writable, write_evidence
from dropclass_deploy.serving.parity import VerifyOptions, verify
from dropclass_deploy.serving.parity.rule import check_allowed
from dropclass_deploy.serving.parity.sides import MaskFunction
from dropclass_deploy.serving.segmenter import Segmenter

EVIDENCE_OPTION = "--evidence"
NOT_JUDGED = "not judged"


@dataclass
class Candidate:
    """One configuration: its times, and later its verdict."""

    configuration: Configuration
    latency_ms: list[float]
    verdict: str = NOT_JUDGED
    reason: str = ""

    @property
    def median_ms(self) -> float:
        """Of one image, from decoded pixels to the mask."""
        return median(self.latency_ms)


def choose(
    artifact: str | Path,
    *,
    data: str | Dataset,
    split: str = "val",
    evidence: str | Path | None = None,
    reference_masks: MaskFunction | None = None,
    options: AutoOptions | None = None,
) -> dict[str, Any]:
    """Find the fastest configuration (runtime × precision × mask head × threads) that passes, and write ``auto.json``.

    Args:
        artifact: folder.
        data: ``FORMAT:PATH``, or an opened data set: images to time with, and the gate's.
        split: of the data.
        evidence: folder for ``auto.json`` and the gate's reports; by default the artifact's ``evidence/``.
        reference_masks: as for ``verify``.
        options: what is tried.

    Returns:
        The content of ``auto.json``.

    Raises:
        GateRefusedError: when no configuration passes; the file says why. UserError: as ``verify``.
    """
    options = options or AutoOptions()
    opened = open_artifact(artifact)
    dataset = open_dataset(data, split) if isinstance(data, str) else data
    target = (Path(evidence) if evidence is not None else opened.evidence) / AUTO_FILE
    check_writable(target, EVIDENCE_OPTION)
    check_allowed(options.allow_insufficient, opened.classes)
    gate = _Gate(Path(artifact), dataset, target.parent, reference_masks, options)
    candidates, unavailable = _timed(opened, dataset, options)
    chosen = gate.first_that_passes(sorted(candidates, key=lambda item: item.median_ms))
    if candidates and all(item.verdict == NOT_JUDGED for item in candidates):
        raise GateRefusedError("the time was up before any configuration was judged; an earlier choice stays as it is")
    content = _content(opened, dataset, options, candidates, unavailable, chosen)
    write_evidence(target, content, EVIDENCE_OPTION)
    if chosen is None:
        reasons = [f"{item.configuration}: {item.verdict} {item.reason}".strip() for item in candidates]
        raise GateRefusedError("no configuration was proved to pass the gate; " + "; ".join(reasons[:4]))
    return content


def _timed(artifact: Artifact, dataset: Dataset, options: AutoOptions) -> tuple[list[Candidate], list[dict[str, str]]]:
    """Every configuration that this machine runs, timed in turn, and the runtimes that it does not run."""
    places = np.unique(np.linspace(0, len(dataset) - 1, min(options.images, len(dataset))).round().astype(int))
    images = [dataset.image(int(place)) for place in places]
    unavailable: list[dict[str, str]] = []
    with ExitStack() as stack:
        calls = {}
        for configuration in _configurations(artifact, options):
            try:
                segmenter = stack.enter_context(_opened(artifact, configuration))
                segmenter(images[0])
            except UserError as error:
                unavailable.append({"configuration": str(configuration), "reason": str(error)})
                continue
            calls[configuration] = _Cycle(segmenter, images)
        with options.reporter.phase(f"timing {len(calls)} configurations in turn"):
            by_name = {str(item): call for item, call in calls.items()}
            budget_s = None if options.budget_minutes is None else 30 * options.budget_minutes  # half of the time
            rounds = options.rounds * len(images)
            timings = interleaved_ms(by_name, rounds, warmup=2, budget_s=budget_s) if calls else {}
    return [Candidate(item, timings[str(item)]) for item in calls], unavailable


def _configurations(artifact: Artifact, options: AutoOptions) -> list[Configuration]:
    found = []
    for runtime in options.runtimes:
        on_gpu = runtime in GPU_RUNTIMES
        for head, precision in artifact.variants():
            if (on_gpu and head != DEFAULT.head) or (runtime == "openvino-bf16" and precision != "fp32"):
                continue  # the sparse head is made for CPUs; bfloat16 is a precision of its own
            counts = (None,) if on_gpu else options.thread_counts()
            found += [
                Configuration(runtime=runtime, precision=precision, head=head, threads=threads) for threads in counts
            ]
    return found


def _opened(artifact: Artifact, configuration: Configuration) -> Segmenter:
    return Segmenter(
        artifact,
        configuration.runtime,
        configuration.threads,
        precision=configuration.precision,
        head=configuration.head,
    )


class _Cycle:
    """A call that segments one image after the other."""

    def __init__(self, segmenter: Segmenter, images: list[Pixels]) -> None:
        self._segmenter, self._images = segmenter, images
        self._count = 0

    def __call__(self) -> object:
        image = self._images[self._count % len(self._images)]
        self._count += 1
        return self._segmenter(image)


class _Gate:
    """Verdicts, one for all thread counts of a runtime and file."""

    def __init__(
        self, artifact: Path, dataset: Dataset, evidence: Path, masks: MaskFunction | None, options: AutoOptions
    ) -> None:
        self._artifact, self._dataset, self._evidence, self._masks = artifact, dataset, evidence, masks
        self._options = options
        self._known: dict[Configuration, tuple[str, str]] = {}
        minutes = options.budget_minutes
        self._deadline = None if minutes is None else monotonic() + 60 * minutes

    def first_that_passes(self, candidates: list[Candidate]) -> Candidate | None:
        for candidate in candidates:
            if self._deadline is not None and monotonic() > self._deadline:
                candidate.reason = "the time was up"
                continue
            candidate.verdict, candidate.reason = self._verdict(candidate.configuration)
            if candidate.verdict == "pass":
                return candidate
        return None

    def _verdict(self, configuration: Configuration) -> tuple[str, str]:
        key = configuration.model_copy(update={"threads": None})
        if key not in self._known:
            with self._options.reporter.phase(f"the gate on {configuration}") as advance:
                report = verify(
                    self._artifact,
                    data=self._dataset,
                    reference_masks=self._masks,
                    evidence=self._evidence,
                    options=VerifyOptions(
                        allow_insufficient=self._options.allow_insufficient,
                        runtime=configuration.runtime,
                        threads=configuration.threads,
                        precision=configuration.precision,
                        head=configuration.head,
                        limit=self._options.limit,
                        progress=advance,
                    ),
                )
            self._known[key] = (report.verdict, "; ".join(report.reasons[:2]))
            self._options.reporter.note(f"{key}: {report.verdict}")
        return self._known[key]


def _content(
    artifact: Artifact,
    dataset: Dataset,
    options: AutoOptions,
    candidates: list[Candidate],
    unavailable: list[dict[str, str]],
    chosen: Candidate | None,
) -> dict[str, Any]:
    plain = [item for item in candidates if item.configuration.model_copy(update={"threads": None}) == DEFAULT]
    baseline = min(plain, key=lambda item: item.median_ms) if plain else None
    configuration = chosen.configuration if chosen else None
    name = model_file(configuration.head, configuration.precision) if configuration else ""
    return {
        "chosen": configuration.model_dump() if configuration else None,
        "candidate_sha256": artifact.manifest.files.get(name),
        "machine": machine(),
        "environment": read_environment(None),
        "data": dataset.spec,
        "split": dataset.split,
        "allow_insufficient": list(options.allow_insufficient),
        "limit": options.limit,
        "images_timed": min(options.images, len(dataset)),
        "baseline": str(baseline.configuration) if baseline else None,
        "candidates": [_row(item, baseline) for item in sorted(candidates, key=lambda item: item.median_ms)],
        "unavailable": unavailable,
    }


def _row(item: Candidate, baseline: Candidate | None) -> dict[str, Any]:
    """A candidate's figures; the ratio is paired, round by round, with the plain file on ONNX Runtime."""
    ratios = [slow / own for slow, own in zip(baseline.latency_ms, item.latency_ms, strict=True)] if baseline else []
    return {
        **item.configuration.model_dump(),
        "latency_ms": {
            name: round(float(np.percentile(item.latency_ms, share)), 3) for name, share in (("p50", 50), ("p90", 90))
        },
        "baseline_over_this": round(median(ratios), 3) if ratios else None,
        "queries": len(item.latency_ms),
        "verdict": item.verdict,
        "reason": item.reason,
    }
