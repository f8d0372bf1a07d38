"""Class-aware mixed precision: the fewest blocks in float32 with which every class passes, not the mean.

Each block's effect on each class is measured once, by taking it alone back to float32. Then blocks are added one by one,
each time the one that helped the class with the least slack most, and measured together. At last those that turn out not
to be needed are taken out again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

from dropclass_deploy.core.progress import Advance
from dropclass_deploy.export.quantise.evaluator import judged, passes, slack, worst
from dropclass_deploy.serving.parity.rule import ClassVerdict

Verdicts = tuple[ClassVerdict, ...]
Evaluate = Callable[[Sequence[str]], Verdicts]
"""Blocks kept in float32 → one verdict a class on the probe images."""


@dataclass(frozen=True)
class Point:
    """One configuration that was measured."""

    kept: tuple[str, ...]
    verdicts: Verdicts

    @property
    def passes(self) -> bool:
        """On the probe images."""
        return passes(self.verdicts)


@dataclass
class Search:
    """The search and what it found.

    Attributes:
        blocks: in the network's order.
        evaluate: measures a configuration.
        deadline: of ``time.monotonic``; None without a limit.
        effects: block → class → what taking it alone back to float32 adds to the class's IoU, a fraction.
        path: configurations in the order of the greedy walk, all INT8 first.
        cut_short: the time ran out.
    """

    blocks: tuple[str, ...]
    evaluate: Evaluate
    deadline: float | None = None
    effects: dict[str, dict[str, float]] = field(default_factory=dict)
    path: list[Point] = field(default_factory=list)
    cut_short: bool = False

    def run(self, advance: Advance | None = None) -> Point:
        """Search until every class passes on the probe images, or time or blocks run out."""
        point = self._measured(())
        if point.passes:
            return point
        self._measure_effects(point, advance)
        while not point.passes and (following := self.extended(point, worst(point.verdicts).figures.name)) is not None:
            point = following
        return self._pruned(point) if point.passes else point

    def extended(self, point: Point, class_name: str) -> Point | None:
        """The configuration with one more block: the one that helps ``class_name`` most; None when none is left."""
        left = [block for block in self.blocks if block not in point.kept]
        # With the last block the network would be the float32 one, which is no mixed precision.
        if len(left) < 2 or self._late():
            return None
        if not self.effects:
            self._measure_effects(self.path[0], None)
        gain = {block: self.effects.get(block, {}).get(class_name, 0.0) for block in left}
        chosen = max(left, key=lambda block: (gain[block], sum(self.effects.get(block, {}).values())))
        return self._measured((*point.kept, chosen))

    def _measured(self, kept: tuple[str, ...]) -> Point:
        ordered = tuple(block for block in self.blocks if block in kept)
        point = Point(ordered, self.evaluate(ordered))
        self.path.append(point)
        return point

    def _measure_effects(self, base: Point, advance: Advance | None) -> None:
        before = _deltas(base.verdicts)
        for index, block in enumerate(self.blocks):
            if self._late():
                return
            after = _deltas(self.evaluate((block,)))
            self.effects[block] = {name: after[name] - before[name] for name in after}
            if advance is not None:
                advance(index + 1, len(self.blocks), block)

    def _pruned(self, point: Point) -> Point:
        """Without the blocks that a passing configuration can spare, those that help least tried first."""
        for block in sorted(point.kept, key=lambda name: sum(self.effects.get(name, {}).values())):
            if len(point.kept) == 1 or self._late():
                break
            fewer = self._measured(tuple(name for name in point.kept if name != block))
            if fewer.passes:
                point = fewer
        return point

    def _late(self) -> bool:
        self.cut_short = self.cut_short or (self.deadline is not None and monotonic() > self.deadline)
        return self.cut_short


def _deltas(verdicts: Verdicts) -> dict[str, float]:
    return {item.figures.name: item.figures.delta for item in judged(verdicts)}


def point_json(point: Point) -> Mapping[str, object]:
    """A configuration as JSON values, IoU figures in points."""
    item = worst(point.verdicts)
    return {
        "kept_in_float32": list(point.kept),
        "passes_on_probes": point.passes,
        "worst_class": item.figures.name,
        "worst_delta_points": round(100 * item.figures.delta, 4),
        "worst_slack_points": round(100 * slack(item), 4),
        "delta_points": {entry.figures.name: round(100 * entry.figures.delta, 4) for entry in judged(point.verdicts)},
    }
