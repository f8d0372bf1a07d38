"""Crops that grow in the course of a run."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

from dropclass_deploy.training.batches.windows import Size
from dropclass_deploy.training.recipe import CurriculumOptions

_SMALLEST = 16
"""Pixels a side: below, a network that divides by 16 or 32 has nothing left to look at."""


@dataclass(frozen=True)
class Curriculum:
    """The crop of every step.

    Attributes:
        starts: the first step of each phase, ascending from 0.
        sizes: (height, width) of the crops in each.
    """

    starts: tuple[int, ...]
    sizes: tuple[Size, ...]

    @classmethod
    def from_recipe(cls, options: CurriculumOptions | None, steps: int, base: Size) -> Curriculum | None:
        """What a recipe asks for; None for crops of one size.

        A phase starts at the step next to the sum of the shares before it, and the last lasts to the end. A side is the
        fraction of the base's, rounded, but 16 pixels at least (or the base's, if that is smaller).

        Args:
            options: of the recipe.
            steps: of the run.
            base: (height, width) that the fractions are of.
        """
        if options is None:
            return None
        ends = accumulate(share for share, _ in options.phases)
        starts = (0, *(round(end * steps) for end in ends))[:-1]
        sizes = tuple((_side(base[0], part), _side(base[1], part)) for _, part in options.phases)
        return cls(starts, sizes)

    def at(self, step: int) -> Size:
        """(height, width) of the crops of one step."""
        return self.sizes[bisect_right(self.starts, step) - 1]

    @property
    def largest(self) -> Size:
        """(height, width) of the largest crops."""
        return max(self.sizes)


def _side(base: int, fraction: float) -> int:
    return max(min(base, _SMALLEST), round(base * fraction))
