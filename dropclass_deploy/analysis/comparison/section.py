"""Each run against the first, on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.analysis.comparison import verdicts
from dropclass_deploy.analysis.comparison.draws import (
    RESAMPLES,
    Draws,
    chance,
    draw_differences,
    interval,
    mean_difference,
    paired_counts,
)
from dropclass_deploy.analysis.comparison.sentences import against_sentences, single_sentences
from dropclass_deploy.analysis.subject import Confusions, Section, Subject, image_means
from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.metrics import mean_of, to_json
from dropclass_deploy.data.dataset import Dataset

CHANGED = 5
"""Images that are named on either side."""


def comparison_section(
    subjects: Sequence[Subject],
    dataset: Dataset,
    indices: Sequence[int],
    confusions: Sequence[Confusions],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Section:
    """Paired differences of every further run to the first, and plain sentences; of one run, sentences about it alone.

    Args:
        subjects: the runs, the baseline first.
        dataset: the split; its keys name the images.
        indices: of the images, as the sweeps saw them.
        confusions: a run, int64 (N, C, C), what its sweep returned.
        resamples: draws of the bootstrap.
        seed: of the draws.
    """
    first, classes = subjects[0], subjects[0].classes
    keys = [dataset.key(index) for index in indices]
    runs = []
    for subject, candidate in zip(subjects[1:], confusions[1:], strict=True):
        draws = draw_differences(confusions[0], candidate, classes.rare, resamples=resamples, seed=seed)
        run = {"name": subject.name, **_differences(confusions[0], candidate, classes, draws, keys)}
        run["sentences"] = against_sentences(run, first.name, len(keys), dataset.split)
        runs.append(run)
    alone = single_sentences(first.name, confusions[0].sum(axis=0), classes, len(keys), dataset.split)
    content = {
        "against": first.name if runs else None,
        "split": dataset.split,
        "images": len(keys),
        "resamples": resamples,
        "seed": seed,
        "runs": runs,
        "sentences": _each_once([sentence for run in runs for sentence in run["sentences"]]) or alone,
    }
    return Section(content)


def _each_once(sentences: Sequence[str]) -> list[str]:
    """What is said of every run, such as what no comparison can show, is said after the last one."""
    return list(dict.fromkeys(reversed(sentences)))[::-1]


def _differences(
    baseline: Confusions, candidate: Confusions, classes: ClassTable, draws: Draws, keys: Sequence[str]
) -> dict[str, Any]:
    counts = paired_counts(baseline, candidate)
    present = counts.truth.sum(axis=0) > 0
    before = np.where(present, counts.reference_iou(), np.nan)
    after = np.where(present, counts.candidate_iou(), np.nan)
    rare = list(classes.rare)
    rows = [
        {
            "name": name,
            "rare": classes.is_rare(index),
            "baseline": to_json(float(before[index])),
            "candidate": to_json(float(after[index])),
            "delta": to_json(float(after[index] - before[index])),
            "interval": _interval_json(draws.classes[:, index], int(np.count_nonzero(counts.truth[:, index]))),
            "images": int(np.count_nonzero(counts.truth[:, index])),
            "pixels": int(counts.truth[:, index].sum()),
        }
        for index, name in enumerate(classes.names)
    ]
    _judge(rows, draws)
    judged = [row for row in rows if row["chance"] is not None]
    images = len(keys)
    return {
        "miou": _mean(before, after, draws.miou, images, judged),
        "rare_miou": _mean(before[rare], after[rare], draws.rare_miou, images, [row for row in judged if row["rare"]]),
        "classes": rows,
        "judged": len(judged),
        "alone": sum(row["alone"] for row in judged),
        "by_chance": verdicts.LEVEL * len(judged),
        **_images(baseline, candidate, draws, keys),
    }


def _open_question(images: int, judged: Sequence[Any]) -> str:
    """Why a mean over classes is not judged; "" when it is."""
    if not verdicts.enough_images(images):
        return verdicts.TOO_FEW_IMAGES
    return "" if judged else verdicts.NO_CLASS_JUDGED


def _mean(
    before: npt.NDArray[np.float64],
    after: npt.NDArray[np.float64],
    draws: npt.NDArray[np.float64],
    images: int,
    judged: Sequence[Any],
) -> Any:
    """A mean over classes: one question asked once, so its own interval decides, unless there is a reason not to judge."""
    delta, ends, reason = float(mean_difference(after - before)), interval(draws), _open_question(images, judged)
    verdict = verdicts.verdict_of(delta, ends, certain=not reason)
    return {
        "baseline": to_json(mean_of(before)),
        "candidate": to_json(mean_of(after)),
        "delta": to_json(delta),
        "interval": _interval_json(draws, images),
        "verdict": verdict,
        "reason": reason or (verdicts.ACROSS_ZERO if verdict == verdicts.CANNOT_TELL else ""),
    }


def _judge(rows: Sequence[dict[str, Any]], draws: Draws) -> None:
    """Give every class its verdict, the reason of a "cannot tell", and whether it stands out when looked at alone."""
    judged = [index for index, row in enumerate(rows) if verdicts.enough(row["images"], row["pixels"])]
    chances = [chance(draws.classes[:, index]) for index in judged]
    certain = dict(zip(judged, verdicts.holm(chances), strict=True))
    for index, row in enumerate(rows):
        row["alone"] = index in certain and verdicts.stands_out(tuple(row["interval"]))
        row["chance"] = chances[judged.index(index)] if index in certain else None
        if index in certain:
            row["verdict"] = verdicts.verdict_of(row["delta"], tuple(row["interval"]), certain=certain[index])
        else:
            row["verdict"] = verdicts.CANNOT_TELL
        row["reason"] = _reason(row, judged=index in certain)


def _reason(row: dict[str, Any], *, judged: bool) -> str:
    if row["verdict"] != verdicts.CANNOT_TELL:
        return ""
    if not judged:
        return verdicts.TOO_FEW if row["pixels"] else verdicts.ABSENT
    return verdicts.BY_CHANCE if row["alone"] else verdicts.ACROSS_ZERO


def _images(baseline: Confusions, candidate: Confusions, draws: Draws, keys: Sequence[str]) -> dict[str, Any]:
    """Differences of the images' own means; the most changed on either side, by size."""
    before, after = image_means(baseline), image_means(candidate)
    deltas = after - before
    order = np.argsort(np.nan_to_num(deltas), kind="stable")
    losses = [int(place) for place in order[:CHANGED] if deltas[place] < 0]
    gains = [int(place) for place in order[::-1][:CHANGED] if deltas[place] > 0]
    chosen = sorted(gains + losses, key=lambda place: -abs(float(deltas[place])))
    return {
        "per_image": {
            "mean_delta": to_json(mean_of(deltas)),
            "interval": _interval_json(draws.image_mean, int(np.count_nonzero(~np.isnan(deltas)))),
            "better": int(np.count_nonzero(deltas > 0)),
            "worse": int(np.count_nonzero(deltas < 0)),
            "equal": int(np.count_nonzero(deltas == 0)),
        },
        "images": [
            {
                "key": keys[place],
                "baseline": float(before[place]),
                "candidate": float(after[place]),
                "delta": float(deltas[place]),
            }
            for place in chosen
        ],
    }


def _interval_json(draws: npt.NDArray[np.float64], images: int) -> list[float] | None:
    """None where nothing varies between draws: of one image all draws are the same."""
    ends = interval(draws)
    return None if images < 2 or np.isnan(ends).any() else list(ends)
