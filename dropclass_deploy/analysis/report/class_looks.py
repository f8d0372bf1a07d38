"""How a class looks wherever the page names it: colour and rarity, by name."""

from __future__ import annotations

from dataclasses import dataclass

from dropclass_deploy.analysis.report.sources import Sources
from dropclass_deploy.core.classes import ClassTable


@dataclass(frozen=True)
class ClassLook:
    """A class as the page shows it.

    Attributes:
        name: of the class.
        colour: CSS colour of its swatch.
        rare: whether it is one of the rare classes.
        share: its share of the training pixels in [0, 1]; None when they were not counted.
        pixels: its training pixels.
    """

    name: str
    colour: str
    rare: bool
    share: float | None = None
    pixels: int | None = None


def class_looks(sources: Sources) -> tuple[ClassLook, ...]:
    """Every class, the most frequent of the training pixels first; in id order when they were not counted."""
    table = _table(sources)
    if table is None:
        return ()
    counts = sources.model.class_pixels if sources.model else None
    if counts is None or len(counts) != len(table):
        return tuple(_look(table, index) for index in range(len(table)))
    order = sorted(range(len(table)), key=lambda index: -counts[index])
    total = sum(counts)
    return tuple(_look(table, index, counts[index], total) for index in order)


def _look(table: ClassTable, index: int, pixels: int | None = None, total: int = 0) -> ClassLook:
    return ClassLook(
        name=table.names[index],
        colour="rgb({} {} {})".format(*table.palette[index]),
        rare=table.is_rare(index),
        share=pixels / total if pixels is not None and total > 0 else None,
        pixels=pixels,
    )


def _table(sources: Sources) -> ClassTable | None:
    """The run's table, else the artifact's."""
    if sources.model and sources.model.classes:
        return sources.model.classes
    return sources.manifest.classes if sources.manifest else None
