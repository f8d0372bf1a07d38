"""``curves.png``: that it is there, whole, and shows what the records say."""

from __future__ import annotations

import io
import json
import math
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dropclass_deploy.core.errors import MissingExtraError
from dropclass_deploy.training.records.curves import MAX_POINTS, curves_png, thinned, write_curves
from dropclass_deploy.training.records.curves_by_class import COLOURS, FALLEN, MAX_LINES, spread

Records = list[dict[str, Any]]


def _train(count: int) -> Records:
    terms = [{"loss": 2 / step, "ce": 1 / step, "suppression": 0.0} for step in range(1, count + 1)]
    extra = {"kind": "train", "progress": 0.5, "lr": 0.1, "dropped": None, "images_per_s": 3.0, "data_share": 0.1}
    return [{**extra, "step": 10 * (index + 1), **losses} for index, losses in enumerate(terms)]


def _val(classes: int, *, last: tuple[float, ...] = (0.5, 0.5, 0.5, 0.5)) -> Records:
    """Validations of as many classes; the last class has the IoUs ``last``, the others 0.6 to 0.87, the second one none."""
    names = [f"class {index}" for index in range(classes)]
    records = []
    for index, value in enumerate(last):
        iou: dict[str, float | None] = {name: 0.6 + 0.03 * (place % 10) for place, name in enumerate(names)}
        if classes > 2:
            iou[names[1]] = None
        iou[names[-1]] = value
        records.append({"kind": "val", "step": 100 * (index + 1), "miou": 0.5, "rare_miou": None, "iou": iou})
    return records


def _pixels(png: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def _count(png: bytes, colour: str) -> int:
    """Pixels of exactly this colour (inside lines; antialiased edges are others)."""
    return int((_pixels(png) == [int(colour[at : at + 2], 16) for at in (1, 3, 5)]).all(axis=-1).sum())


COLLAPSE = (0.5, 0.1, 0.1, 0.1)


@pytest.mark.parametrize("classes", [2, MAX_LINES, MAX_LINES + 1, 150])
def test_a_class_that_collapsed_is_marked_at_any_number_of_classes(classes: int) -> None:
    assert _count(curves_png(_train(40) + _val(classes)), FALLEN) == 0
    assert _count(curves_png(_train(40) + _val(classes, last=COLLAPSE)), FALLEN) > 20


def test_rare_classes_stand_out() -> None:
    means = [record | {"rare_miou": None} for record in _val(11)]
    quiet, loud = curves_png(means, rare=["not one of these"]), curves_png(means, rare=["class 4"])
    # Without a rare class among them all are drawn in colour; with one, it alone has the first colour, and no other any.
    assert _count(quiet, COLOURS[1]) > 100
    assert _count(loud, COLOURS[0]) > 100
    assert _count(loud, COLOURS[1]) == 0


def test_the_picture_is_wide_enough_to_read_and_no_bookkeeping_is_drawn() -> None:
    records = _train(40)
    assert _pixels(curves_png(records)).shape[1] == 1300
    without = [{key: value for key, value in record.items() if key not in {"lr", "data_share"}} for record in records]
    assert curves_png(records) == curves_png(without)


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(_train(1), id="one step, no validation"),
        pytest.param(_val(3)[:1], id="one validation, no step"),
        pytest.param(
            [{"kind": "val", "step": 1, "miou": None, "rare_miou": None, "iou": {"a": None}}], id="only nulls"
        ),
        pytest.param([{"kind": "val", "step": 1, "miou": None, "rare_miou": None, "iou": {}}], id="no class"),
        pytest.param([{"kind": "train", "step": 1, "loss": 0.0}], id="a loss of zero"),
        pytest.param([{"kind": "train", "step": 1, "loss": -2.0}], id="a loss below zero"),
        pytest.param(_train(2) + _val(30)[:1], id="a heat map of one column"),
        pytest.param([{"kind": "other", "step": 1}], id="nothing that is known"),
        pytest.param(
            [{"kind": "val", "step": 1, "miou": 0.5, "rare_miou": 0.5, "iou": {"$x_$ 道路 \\frac" + 50 * "a": 0.5}}],
            id="a name with mathematics, without glyphs, too long",
        ),
    ],
)
def test_what_little_there_is_is_drawn(records: Records) -> None:
    assert _pixels(curves_png(records, rare=["a"])).size


def test_a_run_is_drawn_beside_its_metrics_without_the_cut_line(tmp_path: Path) -> None:
    records = _train(20) + _val(5)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "metrics.jsonl").write_text(lines + '{"kind": "val", "step": 50, "mi', encoding="utf-8")
    write_curves(tmp_path, rare=["class 4"])
    assert (tmp_path / "curves.png").read_bytes() == curves_png(records, rare=["class 4"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "metrics.jsonl"]


def test_a_step_that_a_resumed_run_repeated_counts_once() -> None:
    records = _train(20) + _val(5)
    stale = [record | {"miou": 0.1, "iou": {}} for record in _val(5)[2:]]
    assert curves_png(stale + records) == curves_png(records)


def test_without_records_nothing_is_written(tmp_path: Path) -> None:
    write_curves(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_drawn_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps(_train(1)[0]), encoding="utf-8")
    (tmp_path / "curves.png").write_bytes(b"before")
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # Python's own way to make an import fail
    with pytest.raises(MissingExtraError, match=r"'matplotlib' is not installed; .*dropclass-deploy\[train\]"):
        write_curves(tmp_path)
    assert (tmp_path / "curves.png").read_bytes() == b"before"


def test_the_users_own_matplotlib_style_changes_nothing() -> None:
    import matplotlib

    plain = curves_png(_train(5))
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert curves_png(_train(5)) == plain


def test_drawing_takes_no_time_from_training() -> None:
    records = _train(2000) + _val(19)
    curves_png(records)  # fonts are looked up once
    begin = time.process_time()
    curves_png(records)
    # Half a second of this process's own time here; three for slow machines.
    assert time.process_time() - begin < 3


def test_long_runs_are_thinned_by_means() -> None:
    points = [(float(step), float(step % 2)) for step in range(2 * MAX_POINTS)]
    assert thinned(points) == [(2 * index + 0.5, 0.5) for index in range(MAX_POINTS)]
    assert thinned(points[:5]) == points[:5]
    assert thinned([]) == []


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        pytest.param([0.5], [0.5], id="alone"),
        pytest.param([0.2, 0.8], [0.2, 0.8], id="far apart"),
        pytest.param([0.5, 0.5], [0.55, 0.45], id="around where both want to be"),
        pytest.param([1.0, 1.0], [1.0, 0.9], id="at the top"),
        pytest.param([0.0, 0.0], [0.1, 0.0], id="at the bottom"),
        pytest.param([], [], id="none"),
    ],
)
def test_labels_are_spread_by_hand(wanted: list[float], places: list[float]) -> None:
    # The order of equals is free.
    assert sorted(spread(wanted, 0.1)) == pytest.approx(sorted(places))


@pytest.mark.parametrize("count", [2, 5, 11, 20, 40])
def test_labels_stay_inside_apart_and_in_order(count: int) -> None:
    for wanted in ([0.0] * count, [1.0] * count, [math.sin(index) ** 2 for index in range(count)]):
        places = spread(wanted, 0.05)
        ordered = [places[index] for index in sorted(range(count), key=lambda index: wanted[index])]
        assert min(ordered) >= -1e-9  # rounding
        assert max(ordered) <= 1
        gap = min(0.05, 1 / (count - 1))
        assert all(two - one >= gap - 1e-9 for one, two in pairwise(ordered))
