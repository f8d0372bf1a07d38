"""Line charts as inline SVG; owns matplotlib.

Only numbers enter a chart: every word stands in the page around it, where it is escaped, wraps, and takes the page's
font. Colours are stand-ins that become CSS variables, so that one drawing reads in light and in dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dropclass_deploy.core.errors import MissingExtraError

MAX_POINTS = 240
"""More points than a line on the page can show are averaged in equal groups."""

DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.8), (7, 2, 1.5, 2), (3, 1.5), (9, 3))
"""A dash pattern a line, so that lines differ without colour."""

MAX_LINES = len(DASHES)
_SIZE_INCHES = (4.5, 2.6)
# Stand-ins: #f00000 … #f00005 for the lines, then ink and grid. No figure of a chart can contain them.
_INK, _GRID = "#f0000a", "#f0000b"
_VARIABLES = {_INK: "var(--muted)", _GRID: "var(--line)"}
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 10.0,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
}


@dataclass(frozen=True)
class Line:
    """One line: (x, y) points in order of x, all finite."""

    points: tuple[tuple[float, float], ...]


def draw_lines(lines: Sequence[Line], *, salt: str) -> str:
    """An ``<svg>`` element without size, colours as CSS variables ``--chart-0`` … of the page around it.

    Args:
        lines: at most ``MAX_LINES``.
        salt: differs between the charts of one page, so that their inner ids do too.

    Raises:
        MissingExtraError: when matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "analysis") from error
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        figure.patch.set_alpha(0.0)
        axes = figure.add_subplot()
        _draw(axes, lines)
        stream = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", metadata=nothing)
    return _themed(stream.getvalue())


def _draw(axes: Any, lines: Sequence[Line]) -> None:
    axes.patch.set_alpha(0.0)
    axes.locator_params(axis="both", nbins=4)
    for index, line in enumerate(lines):
        xs, ys = zip(*thinned(line.points), strict=True)
        marker = "o" if len(xs) < 15 else ""
        axes.plot(
            xs,
            ys,
            color=_stand_in(index),
            linewidth=1.8,
            dashes=DASHES[index] or (None, None),
            marker=marker,
            markersize=3.5,
        )
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]) if _touches_zero(lines) else None)
    axes.margins(x=0.02)


def _touches_zero(lines: Sequence[Line]) -> bool:
    """Whether the smallest value is within half of the largest: then the axis begins at 0 and lengths can be compared."""
    values = [y for line in lines for _, y in line.points]
    return min(values) <= 0.5 * max(values)


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most ``MAX_POINTS`` points: means over equal groups of neighbours."""
    size = -(-len(points) // MAX_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(_mean([x for x, _ in group]), _mean([y for _, y in group])) for group in groups]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _stand_in(index: int) -> str:
    return f"#f0000{index}"


def _themed(svg: str) -> str:
    """From a file to an element of a page: no prolog, no fixed size, variables for colours, ids only where used."""
    svg = svg[svg.index("<svg") :]
    head, body = svg.split(">", 1)
    head = re.sub(r' (width|height|version|xmlns(:\w+)?)="[^"]*"', "", head)
    used = set(re.findall(r"#([\w-]+)", body))
    body = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in used else "", body)
    for index in range(MAX_LINES):
        body = body.replace(_stand_in(index), f"var(--chart-{index})")
    for stand_in, variable in _VARIABLES.items():
        body = body.replace(stand_in, variable)
    return f'{head} aria-hidden="true" focusable="false">{body.strip()}'
