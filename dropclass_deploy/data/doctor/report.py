"""The doctor's report: findings, and the class counts of every split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.data.doctor.evidence import Evidence
from dropclass_deploy.data.doctor.findings import Finding, plural
from dropclass_deploy.data.doctor.shares import ClassShare, class_shares
from dropclass_deploy.data.statistics import ClassStatistics

KIND = "dropclass check-data"
"""Stands in report.json, so that a report of ours is known from a foreign file."""


@dataclass(frozen=True)
class Report:
    """What was found in a data set.

    Attributes:
        spec: of the data.
        classes: with the rare ones of the training split; None where the data set has no class table.
        findings: errors first, then warnings, then notes.
        statistics: class counts by split; empty without a class table.
        evidence: the facts behind it; None for data without files.
    """

    spec: str
    classes: ClassTable | None
    findings: tuple[Finding, ...]
    statistics: Mapping[str, ClassStatistics]
    evidence: Evidence | None = field(default=None, repr=False)

    @property
    def errors(self) -> list[Finding]:
        """Training would fail, or silently learn something else."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """Suspicious; training goes on."""
        return [finding for finding in self.findings if finding.severity == "warning"]

    @property
    def notes(self) -> list[Finding]:
        """Worth knowing."""
        return [finding for finding in self.findings if finding.severity == "note"]

    def raise_for_errors(self, *, strict: bool = False) -> None:
        """Raise the first error, with the number of the others.

        Args:
            strict: warnings count as errors.

        Raises:
            DataError: the first error's found, expected and remedy.
        """
        serious = self.errors + (self.warnings if strict else [])
        if serious:
            others = len(serious) - 1
            more = f"(and {plural(others, 'more problem')}: dropclass check-data {self.spec})" if others else ""
            raise serious[0].error(more)

    def shares(self, split: str) -> tuple[ClassShare, ...]:
        """The shares of each class in a split; empty without a class table."""
        return () if self.classes is None else class_shares(self.classes, self.statistics[split])

    def to_json(self) -> dict[str, Any]:
        """Plain data for report.json."""
        return {
            "kind": KIND,
            "data": self.spec,
            "classes": list(self.classes.names) if self.classes else None,
            "rare_classes": [self.classes.names[index] for index in self.classes.rare] if self.classes else None,
            "splits": {
                split: {"images": stats.num_images, "classes": [asdict(row) for row in self.shares(split)]}
                for split, stats in self.statistics.items()
            },
            "findings": [finding.to_json() for finding in self.findings],
        }
