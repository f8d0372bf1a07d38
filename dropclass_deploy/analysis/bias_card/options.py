"""What can be chosen for a bias card."""

from __future__ import annotations

from dataclasses import dataclass

from dropclass_deploy.analysis.co_location.fills import check_fill
from dropclass_deploy.core.errors import UserError


@dataclass(frozen=True)
class AnalysisOptions:
    """Options of ``analyse``; contradictions are refused at construction.

    Attributes:
        limit: at most so many images, spread evenly over the split; None for all.
        fill: what stands where a class was erased, see ``co_location.Eraser``.
        pairs: (true class, class it is taken for) by name, for Grad-CAM; empty: from the confusion matrix.
        seed: of noise, of random patches and of the bootstrap.
        weights: which of each run's networks.
        overwrite: replace a card that stands at the output.
    """

    limit: int | None = None
    fill: str = "dataset_mean"
    pairs: tuple[tuple[str, str], ...] = ()
    seed: int = 0
    weights: str = "last"
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UserError(f"limit is {self.limit}", expected="1 image or more")
        check_fill(self.fill)
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}", expected="0 or more")
        same = next((first for first, second in self.pairs if first == second), None)
        if same is not None:
            raise UserError(f"a pair names {same!r} twice", expected="two different classes")


def spread(count: int, limit: int | None) -> list[int]:
    """Indices of at most ``limit`` of ``count`` images, evenly spread: a split is often in the order of time."""
    if limit is None or limit >= count:
        return list(range(count))
    return [index * count // limit for index in range(limit)]
