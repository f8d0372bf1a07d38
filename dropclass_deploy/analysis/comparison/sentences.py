"""The figures in plain words: what got better, what got worse, what the data cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dropclass_deploy.analysis.comparison.verdicts import ABSENT, ACROSS_ZERO, BETTER, CANNOT_TELL, TOO_FEW, WORSE
from dropclass_deploy.analysis.report.formats import count, percent, points
from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.metrics import Confusion, scores

WEAKEST = 3
"""Classes of a single run that are named."""


def headline(parts: Mapping[str, Any]) -> list[str]:
    """The sentences for the top of the page.

    Args:
        parts: keys of ``analysis.json``; "comparison", and "calibration" where there is one.
    """
    sentences = list(parts["comparison"]["sentences"])
    runs = parts.get("calibration", {}).get("runs", [])
    figures = [f"{run['name']} {percent(run['ece'])}" for run in runs if run["ece"] is not None]
    if figures:
        sentences.append(f"Expected calibration error of the winning class, in per cent: {', '.join(figures)}.")
    return sentences


def against_sentences(run: Mapping[str, Any], baseline: str, images: int, split: str) -> list[str]:
    """What may be said of one run against the baseline.

    Args:
        run: one of the comparison's ``runs``.
        baseline: name of the first run.
        images: compared on.
        split: its name.
    """
    name, rows = run["name"], run["classes"]
    sentences = [f"{name} against {baseline}, on the same {_images(images)} of {split}: {_mean('mIoU', run['miou'])}."]
    if run["rare_miou"]["delta"] is not None:
        sentences.append(f"Over the rare classes: {_mean('mIoU', run['rare_miou'])}.")
    sentences.append(f"Better with {name}: {_changed(rows, BETTER)}.")
    sentences.append(f"Worse with {name}: {_changed(rows, WORSE)}.")
    sentences.extend(_unknown(rows))
    if run["judged"]:
        sentences.append(
            f"Looked at one by one, {run['alone']} of {run['judged']} classes stand out at 95 %; about "
            f"{run['by_chance']:.1f} would by chance alone if nothing differed. A class is called better or worse only "
            "when it stands out among all of them (Holm's correction)."
        )
    sentences.append(
        "This compares two trained networks on these images. With one training of each it says nothing sure about the "
        "methods behind them: another seed would give other differences. The images count as independent draws; "
        "neighbouring frames of a video are not, and the intervals are then too narrow."
    )
    return sentences


def single_sentences(name: str, confusion: Confusion, classes: ClassTable, images: int, split: str) -> list[str]:
    """One run alone: its means, its weakest classes and its most frequent confusion.

    Args:
        name: of the run.
        confusion: int64 (C, C), pooled.
        classes: names and rare classes.
        images: counted on.
        split: its name.
    """
    figures = scores(confusion, classes.rare)
    rare = "" if np.isnan(figures.rare_miou) else f", over the rare classes {percent(figures.rare_miou)} %"
    sentences = [f"{name} on {_images(images)} of {split}: mIoU {percent(figures.miou)} %{rare}."]
    present = [index for index in np.argsort(figures.iou, kind="stable") if figures.truth_pixels[index]]
    if present:
        named = [f"{classes.names[index]} ({percent(float(figures.iou[index]))} %)" for index in present[:WEAKEST]]
        sentences.append(f"Weakest by IoU: {_listed(named)}.")
    wrong = confusion - np.diag(np.diag(confusion))
    if wrong.any():
        truth, predicted = divmod(int(wrong.argmax()), len(wrong))
        share = wrong[truth, predicted] / wrong.sum()
        sentences.append(
            f"Most frequent confusion: {classes.names[truth]} taken for {classes.names[predicted]}, "
            f"{count(int(wrong[truth, predicted]))} pixels, {percent(share)} % of all errors."
        )
    sentences.append("With one run there is nothing to compare it with.")
    return sentences


def _mean(what: str, figures: Mapping[str, Any]) -> str:
    if figures["delta"] is None:
        return f"{what} –"
    text = f"{what} {percent(figures['candidate'])} % against {percent(figures['baseline'])} %, {_span(figures)}"
    if figures["verdict"] != CANNOT_TELL:
        return text
    why = "" if figures["reason"] == ACROSS_ZERO else f" ({figures['reason']})"
    return f"{text}; the data cannot tell which is better{why}"


def _span(figures: Mapping[str, Any]) -> str:
    if figures["interval"] is None:
        return f"{points(figures['delta'])} points (one image has no interval)"
    low, high = figures["interval"]
    return f"{points(figures['delta'])} points (95 % interval {points(low)} to {points(high)})"


def _changed(rows: Sequence[Mapping[str, Any]], verdict: str) -> str:
    """Classes of a verdict, the largest difference first."""
    chosen = sorted((row for row in rows if row["verdict"] == verdict), key=lambda row: -abs(row["delta"]))
    return _listed([f"{row['name']}, {_span(row)}" for row in chosen], "; ") or "no class for certain"


def _unknown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    open_ = [row for row in rows if row["verdict"] == CANNOT_TELL]
    between = [row["name"] for row in open_ if row["reason"] not in (TOO_FEW, ABSENT)]
    few = [row["name"] for row in open_ if row["reason"] == TOO_FEW]
    absent = [row["name"] for row in open_ if row["reason"] == ABSENT]
    sentences = []
    if between:
        sentences.append(f"The data cannot tell for {_listed(between)}.")
    if few:
        sentences.append(f"Too little of it to judge ({TOO_FEW}): {_listed(few)}.")
    if absent:
        sentences.append(f"Not in the truth of these images: {_listed(absent)}.")
    return sentences


def _listed(words: Sequence[str], between: str = ", ") -> str:
    return between.join(words)


def _images(number: int) -> str:
    return f"{number:,} image{'' if number == 1 else 's'}"
