"""A picture of how often each class occurs: bars of pixel share and marks of image share, one panel a split."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropclass_deploy.core.errors import MissingExtraError
from dropclass_deploy.core.files import write_bytes
from dropclass_deploy.data.doctor.report import Report
from dropclass_deploy.data.doctor.shares import ClassShare

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COMMON, _RARE, _IMAGES, _ABSENT = "#3b6ea5", "#c2500f", "#222222", "#bb0000"  # told apart by the colour-blind too
_ROW_IN, _MARGIN_IN, _PANEL_IN, _LETTER_IN = 0.24, 1.5, 4.6, 0.085
_NAME_LENGTH = 32
_SMALLEST = 0.001  # per cent that is written in digits
_TICKS = 6
_LONG = 40  # rows from which the axis is written above too

_Shares = Mapping[str, Sequence[ClassShare]]


def write_chart(report: Report, path: Path) -> None:
    """Draw the shares of a report as a PNG.

    Raises:
        MissingExtraError: without matplotlib.
    """
    shares = {split: report.shares(split) for split in report.statistics}
    write_bytes(path, _png(shares, report.spec))


def _png(shares: _Shares, title: str) -> bytes:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "analysis") from error
    first = next(iter(shares.values()))
    # The most frequent class on top: the tail is what the picture is about.
    order = sorted(range(len(first)), key=lambda index: first[index].pixels)
    labels = [_label(first[index]) for index in order]
    width = max(map(len, labels)) * _LETTER_IN + 0.4 + _PANEL_IN * len(shares)
    figure = Figure(figsize=(width, _MARGIN_IN + _ROW_IN * len(order)), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
    left = _left_end(shares)
    for panel, (split, rows) in zip(panels, shares.items(), strict=True):
        _draw(panel, [rows[index] for index in order], left)
        panel.set_title(split, parse_math=False, loc="left", fontsize=10)
    panels[0].set_yticks(range(len(order)), labels, parse_math=False, fontsize=8)
    figure.suptitle(
        f"How often each class occurs: {_shorter(title, round(width / _LETTER_IN) - 50)}", parse_math=False, fontsize=11
    )
    figure.legend(handles=_legend(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    stream = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font lacks are drawn as boxes; the table has them all
        figure.savefig(stream, format="png")
    return stream.getvalue()


def _draw(panel: Axes, rows: Sequence[ClassShare], left: float) -> None:
    """One split: a bar and a number for the pixels, a ring for the images."""
    shares = [100 * row.pixel_share for row in rows]
    places = range(len(rows))
    panel.set_xscale("log")
    colours = [_RARE if row.rare else _COMMON for row in rows]
    panel.barh(places, [max(share - left, 0) for share in shares], left=left, height=0.72, color=colours)
    occurring = [place for place in places if rows[place].images]
    image_shares = [100 * rows[place].image_share for place in occurring]
    panel.plot(image_shares, occurring, "o", mfc="white", mec=_IMAGES, ms=4, ls="none")
    for place, share in zip(places, shares, strict=True):
        text, colour = (f"{_figure(share)} %", "white") if share else ("absent", _ABSENT)
        panel.text(left * 1.12, place, text, va="center", fontsize=7, color=colour, fontweight="bold")
    panel.set_xlim(left, 140)
    panel.set_ylim(-0.6, len(rows) - 0.4)
    ticks = _ticks(left)
    panel.set_xticks(ticks, [f"{tick:.{max(-round(math.log10(tick)), 0)}f} %" for tick in ticks], fontsize=8)
    panel.tick_params(axis="x", labeltop=len(rows) > _LONG)
    panel.minorticks_off()
    panel.grid(axis="x", color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Patch(color=_COMMON, label="share of the pixels"),
        Patch(color=_RARE, label="share of the pixels, rare class"),
        Line2D([], [], marker="o", mfc="white", mec=_IMAGES, ms=4, ls="none", label="share of the images"),
    ]


def _left_end(shares: _Shares) -> float:
    """Where the logarithmic axis begins, in per cent: two powers of ten below the rarest class, so its bar can be seen."""
    positive = [row.pixel_share * 100 for rows in shares.values() for row in rows if row.pixels]
    return 10.0 ** (math.floor(math.log10(min([*positive, 1.0]))) - 1)


def _label(row: ClassShare) -> str:
    name = row.name if len(row.name) <= _NAME_LENGTH else row.name[: _NAME_LENGTH - 1] + "…"
    return f"{name} (rare)" if row.rare else name


def _figure(percentage: float) -> str:
    """Two digits without an exponent (33, 9.3, 0.0042), short enough for the shortest bar."""
    if percentage < _SMALLEST:
        return f"< {_SMALLEST}"
    return f"{percentage:.{max(1 - math.floor(math.log10(percentage)), 0)}f}"


def _ticks(left: float) -> list[float]:
    """Powers of ten from the right end down, every second one where they would crowd."""
    powers = range(2, round(math.log10(left)) - 1, -1)
    return [10.0**power for power in powers[:: 1 if len(powers) <= _TICKS else 2]]


def _shorter(title: str, length: int) -> str:
    """The end of a long title: data sets differ in the last folder."""
    return title if len(title) <= length else "…" + title[1 - length :]
