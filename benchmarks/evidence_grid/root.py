"""Where plan, stored cells and documents lie in a checkout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Root:
    """A checkout."""

    folder: Path

    @property
    def plan(self) -> Path:
        """The grids."""
        return self.folder / "benchmarks" / "evidence.yaml"

    @property
    def results(self) -> Path:
        """The stored cells."""
        return self.folder / "benchmarks" / "results" / "evidence"

    @property
    def runs(self) -> Path:
        """Run folders of cells at work, unless others are asked for."""
        return self.folder / "runs" / "evidence"

    @property
    def documents(self) -> tuple[Path, ...]:
        """Markdown files that hold tables."""
        return (self.folder / "docs" / "evidence.md", self.folder / "README.md")

    def picture(self, grid: str) -> Path:
        """The curves of a grid."""
        return self.folder / "docs" / f"evidence_{grid}.png"
