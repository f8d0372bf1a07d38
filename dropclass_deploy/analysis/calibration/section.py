"""Calibration as figures and charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dropclass_deploy.analysis.calibration.histogram import Calibration, Reliability
from dropclass_deploy.analysis.report.chart_svg import DASHES, MAX_LINES, Line, draw_lines
from dropclass_deploy.analysis.subject import Section, Subject
from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.metrics import to_json

CHART, RARE_CHART = "calibration/reliability.svg", "calibration/rare.svg"
MIN_BIN_PIXELS = 100
"""A bin with fewer pixels is in the figures, but no point of the chart: its accuracy is a matter of luck."""

# The page's own colours: as a file, or as an image, a drawing sees nothing of the page around it.
_LIGHT = ("#1f5fae", "#c2500a", "#0c7a6c", "#7a3fb5", "#b02a6f", "#5b6673"), "#556170", "#dfe4ea"
_DARK = ("#7fb2f0", "#f39a5b", "#5cc9b8", "#c39bf0", "#f08fbd", "#a9b5c2"), "#9dabba", "#2c3642"


def calibration_section(subjects: Sequence[Subject], calibrations: Sequence[Calibration]) -> Section:
    """Reliability bins and ECE a run: of all pixels, of those predicted as any rare class, and by predicted class; classwise.

    Args:
        subjects: the runs.
        calibrations: a run, the observer of its sweep.

    Raises:
        MissingExtraError: when matplotlib is not installed.
    """
    runs = [_run(subject, each) for subject, each in zip(subjects, calibrations, strict=True)]
    charts = {CHART: _chart(runs, "reliability"), RARE_CHART: _chart([run["rare"] for run in runs], "rare")}
    pictures = {path: chart.encode() for path, chart in charts.items() if chart}
    return Section(
        {
            "bins": calibrations[0].top.pixels.shape[1],
            "chart": CHART if CHART in pictures else None,
            "rare_chart": RARE_CHART if RARE_CHART in pictures else None,
            "lines": _keys([run["name"] for run in runs]),
            "runs": runs,
        },
        pictures,
    )


def _run(subject: Subject, calibration: Calibration) -> dict[str, Any]:
    whole = calibration.top.pooled()
    return {
        "name": subject.name,
        **_figures(whole, 0),
        "rare": _figures(calibration.top.pooled(subject.classes.rare), 0),
        "unusable_pixels": calibration.unusable,
        "classes": _classes(subject.classes, calibration),
    }


def _classes(classes: ClassTable, calibration: Calibration) -> list[dict[str, Any]]:
    wise = calibration.classwise
    classwise = wise.ece() if wise is not None else np.full(len(classes), np.nan)
    rows = []
    for index, name in enumerate(classes.names):
        row = {"name": name, **_figures(calibration.top, index), "classwise_ece": to_json(float(classwise[index]))}
        if wise is not None:
            row |= {
                "true_pixels": int(wise.right[index].sum()),
                "expected_pixels": float(wise.confidence[index].sum()),
            }
        rows.append(row)
    return rows


def _figures(bins: Reliability, index: int) -> dict[str, Any]:
    """ECE, the two means whose difference says which way it is off, and the bins of one row."""
    pixels, right, confidence = bins.pixels[index], bins.right[index], bins.confidence[index]
    total = int(pixels.sum())
    accuracies, confidences = bins.accuracies()[index], bins.confidences()[index]
    return {
        "ece": to_json(float(bins.ece()[index])),
        "pixels": total,
        "confidence": float(confidence.sum()) / total if total else None,
        "accuracy": int(right.sum()) / total if total else None,
        "bins": [
            {
                "from": place / len(pixels),
                "to": (place + 1) / len(pixels),
                "confidence": to_json(float(confidences[place])),
                "accuracy": to_json(float(accuracies[place])),
                "pixels": int(pixels[place]),
            }
            for place in range(len(pixels))
        ],
    }


def _chart(runs: Sequence[dict[str, Any]], salt: str) -> str:
    """Accuracy over confidence: first the diagonal of a network that can be believed, then a line a run.

    "" where a run has no bin with enough pixels.
    """
    lines = [Line(((0.0, 0.0), (1.0, 1.0)))]
    for run in runs[: MAX_LINES - 1]:
        points = [(one["confidence"], one["accuracy"]) for one in run["bins"] if one["pixels"] >= MIN_BIN_PIXELS]
        if not points:
            return ""
        lines.append(Line(tuple(points)))
    return _standing_alone(draw_lines(lines, salt=salt))


def _keys(names: Sequence[str]) -> list[dict[str, Any]]:
    """What the chart's lines are: number of the colour, dash pattern in pixels, label."""
    labels = ("as sure as right", *names[: MAX_LINES - 1])
    dashes = (" ".join(f"{1.4 * length:g}" for length in pattern) for pattern in DASHES)
    return [
        {"index": index, "dash": dash, "label": label}
        for index, (dash, label) in enumerate(zip(dashes, labels, strict=False))
    ]


def _standing_alone(svg: str) -> str:
    """The same drawing, readable as a file of its own too, in light and in dark."""
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    style = f"<style>{_rule(_LIGHT)} @media (prefers-color-scheme: dark) {{ {_rule(_DARK)} }}</style>"
    head, body = svg.split(">", 1)
    return f"{head.replace('<svg', f'<svg {namespaces}', 1)}>{style}{body}"


def _rule(colours: tuple[tuple[str, ...], str, str]) -> str:
    lines, muted, grid = colours
    charts = " ".join(f"--chart-{index}: {colour};" for index, colour in enumerate(lines))
    return f":root {{ {charts} --muted: {muted}; --line: {grid}; }}"
