"""The panel of the classes in ``curves.png``: a line a class, or a heat map when there are too many for lines.

Draws on the axes that it is given and imports nothing of matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Points = list[tuple[float, float]]

INK, QUIET, FALLEN = "#222222", "#808080", "#c00000"
# Okabe and Ito's palette (distinguishable with any colour vision), its yellow and black left out, darkened where needed.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#a6538a", "#b8860b", "#3a9bd1")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))

MAX_LINES = 20
"""More classes than this become rows of a heat map: their lines and labels would hide each other."""

# Inches. The margins hold the names: left of a heat map's rows, right of the lines' ends.
_LINES_HEIGHT, _ROW_HEIGHT = 4.2, 0.155
_LINES_MARGINS, _ROWS_MARGINS = (0.55, 2.4), (1.95, 0.85)
_LABEL_GAP = 0.044  # of the panel's height: a label's line height
_MAX_NAME = 20


@dataclass(frozen=True)
class Series:
    """The IoU of a class over the validations.

    Attributes:
        name: of the class.
        points: (step, IoU in [0, 1]), in order of the step, without those where it has none.
        rare: whether it is one of the rare classes.
    """

    name: str
    points: Points
    rare: bool

    @property
    def label(self) -> str:
        """Name and newest IoU in per cent."""
        name = self.name if len(self.name) <= _MAX_NAME else self.name[: _MAX_NAME - 1] + "…"
        return f"{name}  {100 * self.points[-1][1]:.1f}" if self.points else f"{name}  –"


def class_panel_inches(classes: int) -> float:
    """Height of the panel."""
    return _LINES_HEIGHT if classes <= MAX_LINES else max(_LINES_HEIGHT, classes * _ROW_HEIGHT)


def class_panel_margins(classes: int) -> tuple[float, float]:
    """Inches left and right of the panel."""
    return _LINES_MARGINS if classes <= MAX_LINES else _ROWS_MARGINS


def say_empty(axes: Any, text: str) -> None:
    """An empty panel that says why it is."""
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=QUIET)


def draw_series(axes: Any, points: Points, colour: str, *, width: float, scale: float = 1, **more: Any) -> None:
    """A line; with few points, each is a dot too, so that one alone is seen."""
    steps, values = [x for x, _ in points], [scale * y for _, y in points]
    axes.plot(
        steps, values, color=colour, linewidth=width, marker="o" if len(points) < 15 else "", markersize=3, **more
    )


def draw_classes(axes: Any, classes: Sequence[Series], fallen: Mapping[str, int]) -> None:
    """Fill the panel.

    Args:
        axes: of the panel.
        classes: in the order of the class table.
        fallen: the classes that have collapsed → the step since when they are down.
    """
    shown = [series for series in classes if series.points]
    if not shown:
        axes.set_title("IoU of the classes")
        say_empty(axes, "no validation yet")
        return
    title = "IoU of the classes, %"
    if any(series.rare for series in classes):
        title += " (rare ones in colour)" if len(classes) <= MAX_LINES else " (rare ones first)"
    axes.set_title(title + (f" · ▼ collapsed: {len(fallen)}" if fallen else ""))
    axes.set_xlabel("step")
    if len(classes) <= MAX_LINES:
        _draw_lines(axes, shown, fallen)
    else:
        _draw_heat_map(axes, shown, fallen)


def _draw_lines(axes: Any, classes: Sequence[Series], fallen: Mapping[str, int]) -> None:
    looks = _looks(classes)
    for series, (colour, dash, width) in zip(classes, looks, strict=True):
        draw_series(axes, series.points, colour, width=width, scale=100, linestyle=dash, zorder=2 + width)
        if series.name in fallen:
            step, value = next((x, y) for x, y in series.points if x >= fallen[series.name])
            axes.plot([step], [100 * value], color=FALLEN, marker="v", markersize=9, linestyle="", zorder=6)
    axes.set_ylim(-2, 102)
    axes.set_xlim(0, 1.01 * axes.dataLim.x1)
    _label_ends(
        axes, classes, [FALLEN if s.name in fallen else look[0] for s, look in zip(classes, looks, strict=True)], fallen
    )


def _looks(classes: Sequence[Series]) -> list[tuple[str, Any, float]]:
    """Colour, dash pattern and width of each line; without rare classes all are drawn as if they were."""
    none_rare, looks, index = not any(series.rare for series in classes), [], 0
    for series in classes:
        if series.rare or none_rare:
            looks.append((COLOURS[index % len(COLOURS)], _DASHES[index // len(COLOURS) % len(_DASHES)], 1.8))
            index += 1
        else:
            looks.append((QUIET, "-", 0.8))
    return looks


def _label_ends(axes: Any, classes: Sequence[Series], colours: Sequence[str], fallen: Mapping[str, int]) -> None:
    """Name each line at its right end: a legend of 20 entries would have to be looked up 20 times."""
    low, high = axes.get_ylim()
    right = axes.get_xlim()[1]
    wanted = [(100 * series.points[-1][1] - low) / (high - low) for series in classes]
    for series, colour, want, place in zip(classes, colours, wanted, spread(wanted, _LABEL_GAP), strict=True):
        axes.annotate(
            ("▼ " if series.name in fallen else "") + series.label,
            xy=(right, low + want * (high - low)),
            xytext=(1.025, place),
            textcoords="axes fraction",
            va="center",
            color=colour,
            fontweight="bold" if series.rare else "normal",
            fontsize=8.5,
            parse_math=False,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 0},
        )


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Places in [0, 1] in the order of ``wanted``, near it, and ``gap`` apart (closer only if they do not fit)."""
    gap = min(gap, 1 / max(1, len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    heights = [wanted[index] for index in order]
    # Half-way between moving apart upwards only and downwards only: each crowd stays around where it wants to be.
    up, down = _upwards(heights, gap), _downwards(heights, gap)
    middle = [max(0.0, (high + low) / 2) for high, low in zip(up, down, strict=True)]
    inside = _downwards(_upwards(middle, gap), gap, top=1.0)
    return [place for _, place in sorted(zip(order, inside, strict=True))]


def _upwards(heights: Sequence[float], gap: float) -> list[float]:
    """Each at least ``gap`` above the one before."""
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + gap) if places else height)
    return places


def _downwards(heights: Sequence[float], gap: float, top: float = float("inf")) -> list[float]:
    """Each at least ``gap`` below the one after, the last at most at ``top``."""
    places: list[float] = []
    for height in reversed(heights):
        places.append(min(height, places[-1] - gap if places else top))
    return places[::-1]


def _draw_heat_map(axes: Any, classes: Sequence[Series], fallen: Mapping[str, int]) -> None:
    rows = sorted(classes, key=lambda series: not series.rare)  # stable: the class table's order within
    steps = sorted({step for series in rows for step, _ in series.points})
    values = [[100 * dict(series.points).get(step, float("nan")) for step in steps] for series in rows]
    axes.set_facecolor("#dddddd")  # where a class has no IoU
    axes.grid(visible=False)
    edges = _edges(steps)
    mesh = axes.pcolormesh(edges, range(len(rows) + 1), values, cmap="viridis", vmin=0, vmax=100)
    axes.set_ylim(len(rows), 0)
    height = min(1.0, _LINES_HEIGHT / class_panel_inches(len(rows)))
    axes.figure.colorbar(mesh, cax=axes.inset_axes((1.01, 1 - height, 0.012, height)), label="IoU, %")
    axes.set_yticks([])
    for row, series in enumerate(rows):
        _label_row(axes, row, series, series.name in fallen)
        if series.name in fallen:
            begin = edges[next(i for i, step in enumerate(steps) if step >= fallen[series.name])]
            axes.plot([begin, edges[-1], edges[-1], begin, begin], [row, row, row + 1, row + 1, row], color=FALLEN)


def _label_row(axes: Any, row: int, series: Series, fallen: bool) -> None:
    """Text instead of a tick: matplotlib measures every tick label several times, which takes seconds for 150."""
    axes.text(
        -0.005,
        row + 0.5,
        ("▼ " if fallen else "") + series.label,
        transform=axes.get_yaxis_transform(),
        ha="right",
        va="center",
        fontsize=7,
        fontweight="bold" if series.rare else "normal",
        color=FALLEN if fallen else INK,
        parse_math=False,
    )


def _edges(steps: Sequence[float]) -> list[float]:
    """Borders of the columns: half-way between neighbours, and as far beyond the first and last."""
    if len(steps) == 1:
        return [steps[0] - 0.5, steps[0] + 0.5]
    middles = [(one + two) / 2 for one, two in pairwise(steps)]
    return [2 * steps[0] - middles[0], *middles, 2 * steps[-1] - middles[-1]]
