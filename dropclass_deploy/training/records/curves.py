"""``curves.png``: the training as a picture, drawn anew after each validation; owns matplotlib.

Loss terms, mIoU and rare mIoU over the steps, and the IoU of every class: the rare ones stand out, a class that collapsed is
marked. Drawn without pyplot, which would keep every figure and choose a window system.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dropclass_deploy.core.errors import MissingExtraError
from dropclass_deploy.core.files import write_bytes
from dropclass_deploy.training.records.collapse import collapsed
from dropclass_deploy.training.records.curves_by_class import (
    COLOURS,
    INK,
    QUIET,
    Points,
    Series,
    class_panel_inches,
    class_panel_margins,
    draw_classes,
    draw_series,
    say_empty,
)
from dropclass_deploy.training.records.journal import read_journal
from dropclass_deploy.training.runs.run import CURVES, METRICS

Record = Mapping[str, Any]

MAX_POINTS = 300
"""More points of a loss term are averaged in groups of neighbours: the picture has no room for them, and they are noisy."""

# Numbers of a "train" record that are no loss term.
_BOOKKEEPING = {"kind", "step", "progress", "lr", "dropped", "images_per_s", "data_share", "memory_gib", "epoch"}
# Inches, from the left and from the top. Fixed: a layout engine would draw all twice, and hundreds of labels take long.
_WIDTH, _LEFT, _RIGHT, _BOTTOM, _DPI = 13.0, 0.55, 0.3, 0.5, 100
_TITLE, _TOP_HEIGHT, _BETWEEN = 0.35, 3.0, 0.95
_LEGEND_ENTRIES = 4  # as many as the line of the title holds
_STYLE = {
    "font.size": 9.0,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the picture is the same everywhere
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def write_curves(folder: Path, *, rare: Sequence[str] = ()) -> None:
    """Draw ``metrics.jsonl`` of a run into its ``curves.png``, atomically; without any record nothing is written.

    Args:
        folder: of the run.
        rare: names of the rare classes; without them all classes look alike.

    Raises:
        MissingExtraError: when matplotlib is not installed.
        OSError: when the file cannot be written; the picture before it stays.
    """
    records = list(read_journal(folder / METRICS))
    if records:
        write_bytes(folder / CURVES, curves_png(records, rare=rare))


def curves_png(records: Iterable[Record], *, rare: Sequence[str] = ()) -> bytes:
    """The picture as a PNG.

    Args:
        records: "train" records (loss terms by name) and "val" records (``miou``, ``rare_miou``, ``iou`` {name: value or
            None}, fractions), in any order; of two of one step the later counts, as after a resume.
        rare: names of the rare classes.

    Raises:
        MissingExtraError: when matplotlib is not installed.
    """
    records = list(records)
    return _draw(_by_step(records, "train"), _by_step(records, "val"), rare)


def _by_step(records: Iterable[Record], kind: str) -> list[Record]:
    found = {record["step"]: record for record in records if record.get("kind") == kind}
    return [found[step] for step in sorted(found)]


def _draw(train: Sequence[Record], val: Sequence[Record], rare: Sequence[str]) -> bytes:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **_STYLE}), warnings.catch_warnings():
        # A class name in a script that the font does not have shows as boxes; no reason to disturb the training's log.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        names = list(dict.fromkeys(name for record in val for name in record["iou"]))
        bottom = class_panel_inches(len(names))
        height = _TITLE + _TOP_HEIGHT + _BETWEEN + bottom + _BOTTOM
        figure = Figure(figsize=(_WIDTH, height), dpi=_DPI)
        half = (_WIDTH - 2 * _LEFT - 2 * _RIGHT) / 2
        _draw_losses(_panel(figure, _LEFT, _TITLE, half, _TOP_HEIGHT), train)
        _draw_means(_panel(figure, 2 * _LEFT + _RIGHT + half, _TITLE, half, _TOP_HEIGHT), val)
        left, right = class_panel_margins(len(names))
        panel = _panel(figure, left, _TITLE + _TOP_HEIGHT + _BETWEEN, _WIDTH - left - right, bottom)
        classes = [Series(name, _points(val, ("iou", name)), name in rare) for name in names]
        draw_classes(panel, classes, {one.name: one.since for one in collapsed(val)})
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
    return stream.getvalue()


def _panel(figure: Any, left: float, top: float, width: float, height: float) -> Any:
    """Axes at a place in inches, from the figure's left and top."""
    whole_width, whole_height = figure.get_size_inches()
    bottom = whole_height - top - height
    return figure.add_axes((left / whole_width, bottom / whole_height, width / whole_width, height / whole_height))


def _draw_losses(axes: Any, train: Sequence[Record]) -> None:
    axes.set_title("Loss")
    axes.set_xlabel("step")
    terms = {name: _points(train, (name,)) for name in _term_names(train)}
    for index, (name, points) in enumerate(terms.items()):
        # "loss" is the weighted sum of the others, and the first in the record.
        colour = INK if name == "loss" else COLOURS[index % len(COLOURS)]
        label = "total" if name == "loss" else name
        draw_series(axes, thinned(points), colour, width=1.4, label=f"{label}  {points[-1][1]:.3g}")
    if terms:
        axes.set_xlim(left=0)
        axes.set_ylim(*_loss_range([value for points in terms.values() for _, value in thinned(points)]))
        _draw_legend(axes, len(terms))
    else:
        say_empty(axes, "no training step has been logged yet")


def _draw_legend(axes: Any, entries: int) -> None:
    """Beside the title, where no curve passes; where they are too many for that, where the fewest points lie."""
    if entries > _LEGEND_ENTRIES:
        axes.legend(loc="best", framealpha=0.9, edgecolor="none")
    else:
        beside = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": entries}
        axes.legend(frameon=False, handlelength=1.2, columnspacing=1.2, borderaxespad=0.1, **beside)


def _term_names(train: Sequence[Record]) -> list[str]:
    names = dict.fromkeys(name for record in train for name, value in record.items() if _is_term(name, value))
    return list(names)


def _is_term(name: str, value: Any) -> bool:
    return name not in _BOOKKEEPING and isinstance(value, int | float) and not isinstance(value, bool)


def _loss_range(values: Sequence[float]) -> tuple[float, float]:
    """From 0 to the largest but 2 %: a spike, or the first steps, must not flatten all that follows."""
    kept = sorted(values)[: max(1, round(0.98 * len(values)))]
    low, high = min(0.0, kept[0]), max(kept[-1], 1e-6)
    return low, high + 0.08 * (high - low)


def _draw_means(axes: Any, val: Sequence[Record]) -> None:
    axes.set_title("Validation, %")
    axes.set_xlabel("step")
    found = False
    for key, name, colour in (("miou", "mIoU, all classes", INK), ("rare_miou", "mIoU, rare classes", COLOURS[0])):
        points = _points(val, (key,))
        if points:
            draw_series(axes, points, colour, width=1.8, label=f"{name}  {100 * points[-1][1]:.1f}", scale=100)
            found = True
    if found:
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        _draw_legend(axes, 2)
    else:
        say_empty(axes, "no validation yet")


def _points(records: Iterable[Record], keys: tuple[str, ...]) -> Points:
    """(step, value) where the record has a value."""
    found = []
    for record in records:
        value: Any = record
        for key in keys:
            value = value.get(key)
        if value is not None:
            found.append((float(record["step"]), float(value)))
    return found


def thinned(points: Points) -> Points:
    """At most ``MAX_POINTS`` points: means over equal groups of neighbours."""
    size = max(1, -(-len(points) // MAX_POINTS))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(_mean([x for x, _ in group]), _mean([y for _, y in group])) for group in groups]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
