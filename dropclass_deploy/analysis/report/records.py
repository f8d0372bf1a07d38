"""The measured files that the page reads, as objects.

Every field may be missing: what was not measured is shown as "–", and fields that the page does not show are ignored. A
field of the wrong type is refused, so that no wrong figure is ever drawn.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from dropclass_deploy.core.classes import ClassTable

Figure = float | None


class Record(BaseModel):
    """Base: immutable, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class RunModel(Record):
    """``model.json`` of a run."""

    name: str = ""
    classes: ClassTable | None = None
    class_pixels: tuple[int, ...] | None = None
    train_images: int | None = None
    method: str | None = None
    seed: int | None = None
    steps: int | None = None
    weights: Any = None
    versions: dict[str, Any] = {}


class TrainPoint(Record):
    """A "train" line of ``metrics.jsonl``; the loss terms are whatever other numbers stand in it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    step: int


class ValPoint(Record):
    """A "val" line of ``metrics.jsonl``."""

    step: int
    miou: Figure = None
    rare_miou: Figure = None
    iou: dict[str, Figure] = {}


class ClassScores(Record):
    """One class of one head in ``evaluation.json``; fractions."""

    name: str
    iou: Figure = None
    precision: Figure = None
    recall: Figure = None
    pixels: int | None = None
    rare: bool = False


class HeadScores(Record):
    """One deploy head in ``evaluation.json``; fractions."""

    miou: Figure = None
    rare_miou: Figure = None
    pixel_accuracy: Figure = None
    worst_class_precision: Figure = None
    worst_precision_class: str | None = None
    left_out: tuple[str, ...] = ()
    classes: tuple[ClassScores, ...] = ()

    def of(self, name: str) -> ClassScores:
        """The scores of a class, all missing when it is not there."""
        return next((entry for entry in self.classes if entry.name == name), ClassScores(name=name))


class SplitScores(Record):
    """The deploy heads on one split."""

    split: str = ""
    images: int | None = None
    heads: dict[str, HeadScores] = {}


class Evaluation(SplitScores):
    """``evaluation.json`` of a run."""

    data: str = ""
    selected: str = "plain"
    extra: tuple[SplitScores, ...] = ()


class Pair(Record):
    """One figure of the reference and of the candidate."""

    reference: Figure = None
    candidate: Figure = None


class ParityClass(Record):
    """One class of ``parity.json``; IoU, delta, interval and margin are fractions."""

    name: str
    iou_reference: Figure = None
    iou_candidate: Figure = None
    delta: Figure = None
    interval: tuple[Figure, Figure] | None = None
    margin: Figure = None
    images: int | None = None
    pixels: int | None = None
    rare: bool = False
    verdict: str = ""


class Parity(Record):
    """``evidence/parity.json`` of an artifact."""

    verdict: str
    rule: str | None = None
    classes: tuple[ParityClass, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    pixel_disagreement: Figure = None
    miou: Pair = Pair()
    rare_miou: Pair = Pair()
    images: int | None = None
    data: str | None = None
    split: str | None = None
    provider: str | None = None
    precision: str | None = None


class Latency(Record):
    """Percentiles in milliseconds; p99 is missing under 100 queries."""

    p50: Figure = None
    p90: Figure = None
    p99: Figure = None


class BenchResult(Record):
    """One contender in one scope of ``bench.json``."""

    contender: str | None = None
    scenario: str = ""
    scope: str = ""
    runtime: str = ""
    precision: str = ""
    provider: str | None = None
    resolution: tuple[int, ...] | None = None
    batch: int | None = None
    queries: int | None = None
    latency_ms: Latency = Latency()
    throughput_per_s: Figure = None
    stages_ms: dict[str, Figure] | None = None


class Ratio(Record):
    """A paired ratio against a peer: how many times our latency the peer takes, round by round."""

    scope: str = ""
    against: str = ""
    median: Figure = None
    p10: Figure = None
    p90: Figure = None


class Bench(Record):
    """``evidence/bench.json`` of an artifact."""

    environment: dict[str, Any] = {}
    parity_verdict: str | None = None
    notes: tuple[str, ...] = ()
    results: tuple[BenchResult, ...] = ()
    ratios: tuple[Ratio, ...] = ()
