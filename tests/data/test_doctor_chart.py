"""The picture of the shares: legible from 2 to 150 classes, whatever the classes are called."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import MissingExtraError
from dropclass_deploy.data.doctor import Report
from dropclass_deploy.data.doctor.chart import write_chart
from dropclass_deploy.data.doctor.shares import with_rare
from dropclass_deploy.data.statistics import ClassStatistics

RARE, COMMON = (194, 80, 15), (59, 110, 165)


def stats(pixels: list[int]) -> ClassStatistics:
    return ClassStatistics.of(np.array([pixels], dtype=np.uint32))


def report(names: tuple[str, ...], *pixels: list[int], spec: str = "folder:data") -> Report:
    statistics = {split: stats(counts) for split, counts in zip(("train", "val", "test"), pixels, strict=False)}
    return Report(spec, with_rare(ClassTable(names=names), statistics), (), statistics)


def drawn(made: Report, path: Path) -> np.ndarray:
    write_chart(made, path)
    with Image.open(path) as image:
        return np.array(image.convert("RGB")).astype(int)


def longest_run(picture: np.ndarray, colour: tuple[int, ...]) -> int:
    """Pixels of a colour in the row that has the most of it: the longest bar."""
    return int((np.abs(picture - colour).max(axis=2) < 8).sum(axis=1).max())


def test_bars_are_logarithmic(tmp_path: Path) -> None:
    # 99 %, 0.99 % and 0.0099 %: two powers of ten apart, above an axis that begins at 0.0001 %.
    picture = drawn(report(("a", "b", "c"), [1_000_000, 10_000, 100]), tmp_path / "c.png")
    lengths = longest_run(picture, COMMON), longest_run(picture, RARE)
    # 5.996 powers of ten against 1.996; the figure written into each bar covers some of its pixels, up to a tenth.
    assert lengths[0] / lengths[1] == pytest.approx(5.996 / 1.996, rel=0.15)


@pytest.mark.parametrize("classes", [2, 19, 150])
def test_every_class_has_room(classes: int, tmp_path: Path) -> None:
    names = tuple(f"class {index} with a name that goes on and on" for index in range(classes))
    pixels = [10**6 // (index + 1) for index in range(classes)]
    picture = drawn(report(names, pixels), tmp_path / "c.png")
    # 8 pt text at 110 dpi is 12 pixels high, and lies on a row of its own.
    assert picture.shape[0] / classes > 16
    assert picture.shape[1] < 2000


@pytest.mark.parametrize("name", ["$x_", "数", "a\nb", "<b>&", "\\frac", "🙂"])
def test_names_are_drawn_as_they_are(name: str, tmp_path: Path) -> None:
    drawn(report((name, "other"), [5, 3], spec=f"folder:{name}"), tmp_path / "c.png")


@pytest.mark.parametrize("pixels", [[0, 0], [5, 0]])
def test_classes_without_a_pixel(pixels: list[int], tmp_path: Path) -> None:
    picture = drawn(report(("a", "b"), pixels), tmp_path / "c.png")
    red = (np.abs(picture - (187, 0, 0)).max(axis=2) < 40).sum()
    assert red > 30  # "absent" is written in red


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"matplotlib.*dropclass-deploy\[analysis\]"):
        write_chart(report(("a", "b"), [5, 3]), tmp_path / "c.png")
    assert list(tmp_path.iterdir()) == []
