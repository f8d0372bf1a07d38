"""The curves of a grid as a PNG: validation mIoU and rare mIoU over the steps, a line a setting."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dropclass_deploy.core.errors import MissingExtraError
from dropclass_deploy.training.records.curves_by_class import COLOURS, INK
from evidence_grid.part_cells import PartCells

KEYS = {"miou": "validation mIoU, %", "rare_miou": "validation rare mIoU, %"}
DIGEST = "evidence-sha256"
"""The PNG's text chunk with the hash of what is drawn: pixels differ from one matplotlib to the next."""

Band = list[tuple[int, float, float, float]]
"""(step, mean, min, max) over seeds, in %."""
LINES = 10
"""In a panel: more cannot be told apart, and their legend is longer than the picture."""
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))
_PALETTE = (INK, *COLOURS)
_STYLE = {
    "font.size": 9.0,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the picture is the same everywhere
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
}


def band(part: PartCells, setting: str, key: str) -> Band:
    """Over the seeds that validated at a step."""
    by_step: dict[int, list[float]] = {}
    for cell in part.cells(setting).values():
        for point in cell["curve"]:
            if point[key] is not None:
                by_step.setdefault(point["step"], []).append(100 * point[key])
    return [(step, sum(found) / len(found), min(found), max(found)) for step, found in sorted(by_step.items())]


def drawn(parts: Sequence[PartCells]) -> list[dict[str, Any]]:
    """What the picture shows, as JSON values: a row a part that was validated more than once."""
    rows = [
        {
            "title": f"{part.title}, {part.seeds}",
            "panels": {key: {name: band(part, name, key) for name in part.settings} for key in KEYS},
        }
        for part in map(_shown, parts)
    ]
    return [row for row in rows if any(len(points) > 1 for points in row["panels"]["miou"].values())]


def _shown(part: PartCells) -> PartCells:
    """The settings with all of their seeds, or whatever is there before any has; of too many those of the headline."""
    part = part.only(part.complete or part.settings)
    if len(part.settings) <= LINES:
        return part
    return part.only(part.grid.headline or part.settings[:LINES])


def digest(content: Sequence[dict[str, Any]]) -> str:
    """SHA-256 of what is drawn."""
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()


def digest_in(path: Path) -> str | None:
    """What a picture says that it shows; None when it is not there, or no such picture."""
    try:
        with Image.open(path) as image:
            found = image.info.get(DIGEST)
    except OSError:
        return None
    return found if isinstance(found, str) else None


def png(content: Sequence[dict[str, Any]]) -> bytes:
    """A row a part, mIoU left, rare mIoU right, the legend beside them.

    Raises:
        MissingExtraError: without matplotlib.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **_STYLE}):
        figure = Figure(figsize=(11.0, 3.4 * len(content)), dpi=100, layout="constrained")
        # A setting looks the same in every part.
        settings = [name for part in content for panel in part["panels"].values() for name in panel]
        looks = {name: index for index, name in enumerate(dict.fromkeys(settings))}
        for subfigure, part in zip(figure.subfigures(len(content), 1, squeeze=False)[:, 0], content, strict=True):
            _draw_part(subfigure, part, looks)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None, DIGEST: digest(content)})
    return stream.getvalue()


def _draw_part(subfigure: Any, part: dict[str, Any], looks: dict[str, int]) -> None:
    subfigure.suptitle(part["title"], x=0.01, ha="left", fontsize=10, fontweight="bold")
    panels = subfigure.subplots(1, len(part["panels"]))
    for axes, (key, settings) in zip(panels, part["panels"].items(), strict=True):
        axes.set_ylabel(KEYS[key])
        axes.set_xlabel("step")
        for name, points in settings.items():
            _draw_band(axes, looks[name], name, points)
    handles, labels = panels[0].get_legend_handles_labels()
    subfigure.legend(handles, labels, loc="outside right upper", frameon=False, handlelength=3.5)


def _draw_band(axes: Any, index: int, name: str, points: Band) -> None:
    if not points:
        return
    steps, means, lows, highs = zip(*points, strict=True)
    colour = _PALETTE[index % len(_PALETTE)]
    # Beyond the palette the dashes tell lines of one colour apart.
    dashes = _DASHES[index // len(_PALETTE) % len(_DASHES)]
    axes.plot(steps, means, color=colour, linestyle=dashes, linewidth=1.6, marker="o", markersize=3, label=name)
    axes.fill_between(steps, lows, highs, color=colour, alpha=0.12, linewidth=0)
