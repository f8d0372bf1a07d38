"""What became of the lower precisions of an export."""

from __future__ import annotations

from dataclasses import dataclass

from dropclass_deploy.serving.parity import ParityReport

PASS = "pass"


@dataclass(frozen=True)
class Judged:
    """An engine, and what the gate said of the files on it."""

    runtime: str
    verdict: str


@dataclass(frozen=True)
class Shipped:
    """A precision that passed the gate.

    Attributes:
        precision: "fp16", "int8" or "mixed".
        made_by: the method, and which blocks stayed in float32.
        judged: engines, the one it was made for first.
        report: of the gate on that engine.
    """

    precision: str
    made_by: str
    judged: tuple[Judged, ...]
    report: ParityReport

    @property
    def worst_class(self) -> tuple[str, float]:
        """The judged class whose IoU fell most (or rose least), and by how many points."""
        judged = [item for item in self.report.classes if item.verdict != "absent"]
        least = min(judged, key=lambda item: item.figures.delta)
        return least.figures.name, 100 * least.figures.delta


@dataclass(frozen=True)
class Outcome:
    """What is in the artifact, and a sentence for each precision that is not."""

    shipped: tuple[Shipped, ...] = ()
    refused: tuple[str, ...] = ()
