"""The result of a comparison, and its form as ``evidence/parity.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dropclass_deploy.core.metrics import mean_of, to_json
from dropclass_deploy.serving.parity.rule import ABSENT, ClassVerdict

PARITY_FILE = "parity.json"


@dataclass(frozen=True)
class SampleCheck:
    """``sample/image.png`` through the mask file against ``sample/mask.png``.

    Attributes:
        differing: pixels.
        pixels: of the sample.
        problem: one sentence when the check fails, else "".
    """

    differing: int
    pixels: int
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """As in ``parity.json``."""
        return {"verdict": "fail" if self.problem else "pass", "differing": self.differing, "pixels": self.pixels}


@dataclass(frozen=True)
class Facts:
    """Who was compared with whom, on what.

    ``provider`` and ``precision`` are the candidate's, as it really ran and as read from its graph.
    """

    reference: str
    candidate: str
    candidate_sha256: str
    reference_precision: str
    precision: str
    provider: str
    preprocess_digest: str | None
    data: str
    split: str
    seed: int
    resamples: int
    versions: dict[str, str]


@dataclass(frozen=True)
class ParityReport:
    """The gate's decision and all that it rests on.

    Attributes:
        verdict: "pass", "fail" or "insufficient": the worst of the classes.
        rule: "strict" or "non-inferiority".
        classes: one verdict a class, in id order.
        reasons: sentences that explain a fail or an insufficient; empty for a pass.
        notes: sentences that do not change the verdict.
        images: how many were compared.
        pixel_disagreement: share of all pixels, in [0, 1].
        logits_disagreement: between an artifact's two files; None for two ONNX files.
        sample_check: of an artifact; None for two ONNX files.
        allow_insufficient: class names that were allowed to be insufficient.
    """

    verdict: str
    rule: str
    classes: tuple[ClassVerdict, ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    images: int
    pixel_disagreement: float
    logits_disagreement: float | None
    sample_check: SampleCheck | None
    allow_insufficient: tuple[str, ...]
    facts: Facts

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values; IoU figures are fractions, NaN is null."""
        facts = self.facts
        return {
            "verdict": self.verdict,
            "rule": self.rule,
            "unit": "fraction",
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "data": facts.data,
            "split": facts.split,
            "images": self.images,
            "reference": facts.reference,
            "candidate": facts.candidate,
            "candidate_sha256": facts.candidate_sha256,
            "reference_precision": facts.reference_precision,
            "precision": facts.precision,
            "provider": facts.provider,
            "preprocess_digest": facts.preprocess_digest,
            "pixel_disagreement": self.pixel_disagreement,
            "logits_disagreement": self.logits_disagreement,
            "sample_check": self.sample_check.to_json() if self.sample_check else None,
            "miou": _means(self.classes, rare_only=False),
            "rare_miou": _means(self.classes, rare_only=True),
            "seed": facts.seed,
            "resamples": facts.resamples,
            "allow_insufficient": list(self.allow_insufficient),
            "classes": [_class_json(item) for item in self.classes],
            "versions": facts.versions,
        }


def _means(classes: tuple[ClassVerdict, ...], *, rare_only: bool) -> dict[str, float | None]:
    figures = [item.figures for item in classes if item.figures.rare or not rare_only]
    reference = np.array([item.iou_reference for item in figures], dtype=np.float64)
    candidate = np.array([item.iou_candidate for item in figures], dtype=np.float64)
    return {"reference": to_json(mean_of(reference)), "candidate": to_json(mean_of(candidate))}


def _class_json(item: ClassVerdict) -> dict[str, Any]:
    figures = item.figures
    known = item.verdict != ABSENT
    return {
        "name": figures.name,
        "iou_reference": to_json(figures.iou_reference),
        "iou_candidate": to_json(figures.iou_candidate),
        "delta": to_json(figures.delta),
        "interval": [to_json(end) for end in figures.interval] if known else None,
        "margin": item.margin,
        "images": figures.images,
        "pixels": figures.pixels,
        "rare": figures.rare,
        "verdict": item.verdict,
        "reason": item.reason,
    }
