"""Composites: what stands where, and how often the second source follows the first."""

from __future__ import annotations

import numpy as np
import pytest

from dropclass_deploy.analysis.spurious.composites import Composites, Layout, Link, cell_box, compose
from dropclass_deploy.analysis.spurious.sources import Source
from dropclass_deploy.core.errors import DataError

CLASSES = 4


def flat_source(offset: int) -> Source:
    """Two images of 2×3 pixels a class, of one brightness: offset + 10·class."""
    labels = np.arange(2 * CLASSES) % CLASSES
    return Source(np.broadcast_to((offset + 10 * labels)[:, None, None], (8, 2, 3)).astype(np.uint8), labels)


def made(count: int, layout: Layout | None = None, link: Link | None = None, **more: tuple[int, ...]) -> Composites:
    layout = layout or Layout(grid=2, first=0, second=3, inverted=False)
    return compose(flat_source(1), flat_source(101), count, layout, link or Link(), np.random.default_rng(0), **more)


def test_every_source_stands_in_its_cell_and_the_rest_is_black() -> None:
    composites = made(12)
    assert composites.images.shape == (12, 4, 6)
    for image, label, second in zip(composites.images, composites.labels, composites.seconds, strict=True):
        assert (image[:2, :3] == 1 + 10 * label).all()
        assert (image[2:, 3:] == 101 + 10 * second).all()
        assert not image[:2, 3:].any()
        assert not image[2:, :3].any()


def test_the_second_is_shown_dark_on_white() -> None:
    composites = made(5, Layout(grid=2, first=0, second=3, inverted=True))
    np.testing.assert_array_equal(composites.images[:, 2, 3], 255 - (101 + 10 * composites.seconds))
    np.testing.assert_array_equal(composites.images[:, 0, 0], 1 + 10 * composites.labels)


def test_classes_are_shared_equally() -> None:
    assert np.bincount(made(42).labels).tolist() == [11, 11, 10, 10]


def test_at_strength_one_only_the_linked_classes_agree() -> None:
    composites = made(8000, link=Link((1, 3), 1.0))
    linked = np.isin(composites.labels, (1, 3))
    assert (composites.seconds == composites.labels)[linked].all()
    # 4,000 draws of 1/4: four standard deviations are 0.027.
    assert (composites.seconds == composites.labels)[~linked].mean() == pytest.approx(0.25, abs=0.027)


@pytest.mark.parametrize("strength", [0.0, 0.5, 0.9])
def test_the_second_agrees_as_often_as_was_asked(strength: float) -> None:
    composites = made(8000, link=Link((0, 1, 2, 3), strength))
    expected = strength + (1 - strength) / CLASSES  # any class may by chance be the first's
    # Four standard deviations of 8,000 draws are below 0.0224.
    assert (composites.seconds == composites.labels).mean() == pytest.approx(expected, abs=0.0224)


def test_the_first_can_be_moved_and_the_second_stays() -> None:
    layout = Layout(grid=2, first=0, second=3, inverted=False)
    assert layout.elsewhere() == (1, 2)
    composites = made(40, layout, cells=layout.elsewhere())
    assert set(composites.cells.tolist()) == {1, 2}
    for image, label, cell in zip(composites.images, composites.labels, composites.cells, strict=True):
        assert (image[cell_box(int(cell), 2, (4, 6))] == 1 + 10 * label).all()
        assert (image[2:, 3:] > 100).all()
        assert not image[:2, :3].any()


def test_the_generator_alone_decides() -> None:
    np.testing.assert_array_equal(made(30).images, made(30).images)


def test_a_subset_keeps_all_four_together() -> None:
    composites = made(20)
    chosen = composites.subset(composites.labels == 2)
    assert chosen.labels.tolist() == [2] * 5
    assert (chosen.images[:, 0, 0] == 21).all()


@pytest.mark.parametrize(("grid", "first", "second"), [(1, 0, 0), (2, 0, 0), (2, 0, 4), (2, -1, 3)])
def test_a_layout_that_cannot_be(grid: int, first: int, second: int) -> None:
    with pytest.raises(DataError, match=f"cells {first} and {second} are asked for on a grid of {grid}×{grid}"):
        Layout(grid, first, second)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_that_is_no_probability(strength: float) -> None:
    with pytest.raises(DataError, match=r"expected 0 … 1"):
        Link((0,), strength)


def test_a_link_of_classes_that_are_not_there() -> None:
    with pytest.raises(DataError, match=r"classes \[4\] are to be linked; expected ids of 0 … 3"):
        made(4, link=Link((0, 4), 1.0))


def test_sources_that_do_not_fit() -> None:
    other = Source(np.zeros((4, 3, 3), np.uint8), np.arange(4))
    with pytest.raises(DataError, match=r"4 classes and images of 2×3 pixels, the second 4 and 3×3"):
        compose(flat_source(0), other, 4, Layout(), Link(), np.random.default_rng(0))
