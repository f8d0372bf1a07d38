"""Tables of cells written by hand, word for word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evidence_cells import changed, checkout, head, plan_of, stored
from evidence_grid import tables
from evidence_grid.part_cells import PartCells

from dropclass_deploy.core.errors import UserError

ONE_SPLIT: dict[str, Any] = {"evaluate": [{"split": "val"}], "reduced": "Half the steps."}


def part(folder: Path, *, missing: bool = False, **grid: Any) -> PartCells:
    """ce has mIoU 50, 52, 54 %; the other 2, 3 and 4 points more."""
    plan = plan_of(checkout(folder, changed(**ONE_SPLIT | grid)))
    cells = []
    for cell in plan.cells(plan.grid("tiny")):
        step = cell.seed / 50
        if cell.setting == "ce":
            cells.append(stored(cell, head(0.5 + step, 0.4, None, 0.4)))
        elif not (missing and cell.seed):
            plain = head(0.52 + 1.5 * step, 0.4, 0.8, 0.5)
            cells.append(stored(cell, plain, head(0.5 + step, 0.4, 0.8, 0.5)))
    return PartCells(plan.grid("tiny"), "all", tuple(cells))


def test_the_main_table(tmp_path: Path) -> None:
    # Differences of mIoU 2, 3, 4 points: mean 3, half width 4.30265 · 1 / √3 = 2.48; 3 / 52 = 5.8 %.
    assert tables.main_table(part(tmp_path, watch="pole")) == (
        "**tiny, split `val`**, seeds 0, 1, 2; mean ± standard deviation over the seeds in %, Δ in points. "
        "Half the steps.\n"
        "\n"
        "| setting | head | seeds | mIoU | rare mIoU | pole IoU | Δ mIoU to ce | Δ rare mIoU to ce | Δ pole IoU to ce |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| ce | plain | 3 | 52.00 ± 2.00 | 40.00 ± 0.00 | 40.00 ± 0.00 | – | – | – |\n"
        "| dropclass λ1 α10 | plain | 3 | 55.00 ± 3.00 | 40.00 ± 0.00 | 50.00 ± 0.00 "
        "| **+3.00 [+0.52, +5.48]**<br>+5.8 % | +0.00 [+0.00, +0.00]<br>+0.0 % "
        "| **+10.00 [+10.00, +10.00]**<br>+25.0 % |\n"
        "| dropclass λ1 α10 | folded | 3 | 52.00 ± 2.00 | 40.00 ± 0.00 | 50.00 ± 0.00 "
        "| +0.00 [+0.00, +0.00]<br>+0.0 % | +0.00 [+0.00, +0.00]<br>+0.0 % "
        "| **+10.00 [+10.00, +10.00]**<br>+25.0 % |"
    )


def test_an_incomplete_table_says_so(tmp_path: Path) -> None:
    text = tables.main_table(part(tmp_path, missing=True))
    assert "Not complete: 2 of 6 cells are missing (`python benchmarks/evidence.py tiny`)." in text
    assert (
        "| dropclass λ1 α10 | plain | 1 of 3 | 52.00 | 40.00 "
        "| +2.00 [–] (1 pair)<br>+4.0 % | +0.00 [–] (1 pair)<br>+0.0 % |"
    ) in text


def test_every_baseline_has_its_columns(tmp_path: Path) -> None:
    text = tables.main_table(part(tmp_path, baselines=["ce", "dropclass λ1 α10"]))
    assert "| Δ mIoU to ce | Δ rare mIoU to ce | Δ mIoU to dropclass λ1 α10 | Δ rare mIoU to dropclass λ1 α10 |" in text
    assert "| ce | plain | 3 | 52.00 ± 2.00 | 40.00 ± 0.00 | – | – | **-3.00 [-5.48, -0.52]**<br>-5.5 % |" in text


def test_the_class_table_goes_by_frequency(tmp_path: Path) -> None:
    table = tables.classes_table(part(tmp_path)).splitlines()[2:]
    assert table == [
        "| class | pixels, % | ce | dropclass λ1 α10 |",
        "| --- | ---: | ---: | ---: |",
        "| pole † | 75.00 | 40.0 | 50.0 (+10.0) |",
        "| sky | 25.00 | – | 80.0 |",
    ]


def test_the_correlation_table(tmp_path: Path) -> None:
    table = tables.correlation_table(part(tmp_path)).splitlines()[2:]
    assert table == [
        "| class | pixels, % | ce | dropclass λ1 α10 |",
        "| --- | ---: | ---: | ---: |",
        "| pole † | 75.00 | – | -0.25 / 1.25 |",
        "| sky | 25.00 | – | 0.50 / 1.50 |",
        "| mean over classes |  | – | 0.12 / 1.38 |",
    ]


def test_the_headline(tmp_path: Path) -> None:
    table = tables.headline_table(part(tmp_path)).splitlines()[2:]
    assert table == [
        "| setting | seeds | mIoU | rare mIoU | Δ mIoU to ce | Δ rare mIoU to ce |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| ce | 3 | 52.00 ± 2.00 | 40.00 ± 0.00 | – | – |",
        "| dropclass λ1 α10 | 3 | 55.00 ± 3.00 | 40.00 ± 0.00 | **+3.00 [+0.52, +5.48]** | +0.00 [+0.00, +0.00] |",
    ]


def test_the_methods_say_what_they_are(tmp_path: Path) -> None:
    whole = part(tmp_path)
    told = replace(whole, grid=replace(whole.grid, about={"ce": "cross-entropy | alone"}))
    assert tables.methods_table(told).splitlines()[2:] == [
        "| setting | what it is | mIoU | rare mIoU | Δ mIoU to ce | Δ rare mIoU to ce |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        "| ce | cross-entropy \\| alone | 52.00 ± 2.00 | 40.00 ± 0.00 | – | – |",
        "| dropclass λ1 α10 | – | 55.00 ± 3.00 | 40.00 ± 0.00 | +3.00 | +0.00 |",
    ]


def test_a_baseline_with_fewer_seeds_leaves_fewer_pairs(tmp_path: Path) -> None:
    whole = part(tmp_path)
    some = replace(whole, stored=tuple(cell for cell in whole.stored if (cell["setting"], cell["seed"]) != ("ce", 2)))
    text = tables.headline_table(some)
    assert "| ce | 2 of 3 | 51.00 ± 1.41 | 40.00 ± 0.00 | – | – |" in text
    assert "| dropclass λ1 α10 | 3 | 55.00 ± 3.00 | 40.00 ± 0.00 | +2.50 [-3.85, +8.85] (2 pairs) |" in text


def test_cells_of_different_making_are_said_to_be(tmp_path: Path) -> None:
    whole = part(tmp_path)
    assert "Made by" not in tables.main_table(whole)
    first, second, third, *others = whole.stored
    made = {key: first[key] for key in ("code", "versions", "device", "threads")}
    unknown = dict.fromkeys(made)
    second = second | {"parts": [unknown, made | {"code": {"commit": "a", "dirty": False}}, made]}
    mixed = replace(whole, stored=(first, second, third, *others))
    for table in (tables.main_table, tables.headline_table, tables.classes_table, tables.correlation_table):
        assert "Made by 2 commits of the code on 1 kind of device. " in table(mixed).splitlines()[0] + " "
    third = third | {
        "code": {"commit": "a", "dirty": True},
        "device": "a GPU",
        "threads": 2,
        "versions": {"torch": "3"},
    }
    assert (
        "Made by 3 commits of the code (with changes not committed) on 2 kinds of device, with 2 versions of torch, "
        "with 1 or 2 threads."
    ) in tables.main_table(replace(whole, stored=(first, second, third, *others)))


def test_every_split_has_a_table(tmp_path: Path) -> None:
    text = tables.main_table(part(tmp_path, evaluate=[{"split": "val"}, {"split": "unbiased"}]))
    assert text.count("| setting |") == 2
    assert "**tiny, split `unbiased`**" in text


def test_a_class_to_watch_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no class 'cyclist' to watch; expected one of sky, pole"):
        tables.main_table(part(tmp_path, watch="cyclist"))
