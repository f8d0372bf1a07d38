"""One file to facts: hand-worked pixels, every kind of mask, and bytes that mean harm."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dropclass_deploy.data.doctor.edges import MIN_BORDER_PIXELS, SUSPECT_SHARE, count_borders
from dropclass_deploy.data.doctor.facts import MAX_VALUES, FileFacts, ImageFacts, MaskFacts
from dropclass_deploy.data.doctor.scan import scan_image, scan_mask


def saved(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


NOISE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_values_are_counted_the_most_frequent_first(tmp_path: Path) -> None:
    facts = scan_mask(saved(tmp_path / "m.png", np.array([[0, 0, 7], [7, 0, 255]], dtype=np.uint8)))
    assert facts.values == ((0, 3), (7, 2), (255, 1))
    assert (facts.distinct, facts.size, facts.mode, facts.bits) == (3, (2, 3), "L", 8)
    assert facts.problem is None


def test_a_palette_mask_gives_indices_and_their_colours(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 2]], dtype=np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 1, 1, 1, 200, 100, 0])
    image.save(tmp_path / "m.png")
    facts = scan_mask(tmp_path / "m.png")
    assert facts.values == ((0, 1), (2, 1))
    assert facts.palette == {0: (10, 20, 30), 2: (200, 100, 0)}


def test_a_mask_of_colours_gives_colours(tmp_path: Path) -> None:
    pixels = np.array([[[1, 2, 3], [1, 2, 3], [255, 0, 9]]], dtype=np.uint8)
    facts = scan_mask(saved(tmp_path / "m.png", pixels))
    assert facts.colours == (((1, 2, 3), 2), ((255, 0, 9), 1))
    assert (facts.distinct_colours, facts.values) == (2, ())


def test_a_16_bit_mask_and_the_cap_of_listed_values(tmp_path: Path) -> None:
    ids = np.arange(1000, dtype=np.uint16).reshape(20, 50)
    ids[0, :2] = 999  # now three times, and the first in the list
    facts = scan_mask(saved(tmp_path / "m.png", ids))
    assert (facts.distinct, len(facts.values), facts.values[0], facts.bits) == (998, MAX_VALUES, (999, 3), 16)


def test_negative_values_are_facts_too(tmp_path: Path) -> None:
    facts = scan_mask(saved(tmp_path / "m.tif", np.array([[-1, 4]], dtype=np.int32)))
    assert dict(facts.values) == {-1: 1, 4: 1}


def test_two_encodings_of_the_same_pixels_have_one_digest(tmp_path: Path) -> None:
    one = scan_image(saved(tmp_path / "a.png", NOISE))
    assert one.digest == scan_image(saved(tmp_path / "b.bmp", NOISE)).digest
    assert one.digest == scan_image(saved(tmp_path / "c.tif", NOISE)).digest
    assert one.digest != scan_image(saved(tmp_path / "d.png", 255 - NOISE)).digest


def test_a_deep_image_needs_a_range(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", np.array([[0, 4000]], dtype=np.uint16))
    facts = scan_image(path)
    assert (facts.bits, facts.digest) == (16, "")
    assert facts.problem is not None
    assert (facts.problem.kind, "value_range" in facts.problem.remedy) == ("form", True)
    assert scan_image(path, (0, 4000)).problem is None


def _png() -> bytes:

    stream = io.BytesIO()
    Image.fromarray(NOISE).save(stream, format="PNG")
    return stream.getvalue()


WHOLE = _png()
HARMFUL = {
    "empty": b"",
    "text": b"not a picture",
    "header only": WHOLE[:40],
    "cut": WHOLE[:-60],
    "huge": WHOLE[:16] + (2**31 - 1).to_bytes(4, "big") * 2 + WHOLE[24:],
    "flipped": WHOLE[:50] + bytes(255 - byte for byte in WHOLE[50:90]) + WHOLE[90:],
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
}


@pytest.mark.parametrize("content", HARMFUL.values(), ids=HARMFUL.keys())
@pytest.mark.parametrize("scan", [scan_image, scan_mask])
def test_harmful_bytes_become_facts(scan, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    facts: FileFacts = scan(path)
    assert facts.problem is not None
    assert (facts.problem.kind, str(path) in facts.problem.found) == ("unreadable", True)


@pytest.mark.parametrize("scan", [scan_image, scan_mask])
def test_what_is_no_file_becomes_a_fact(scan, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "gone.png", tmp_path, tmp_path / "pipe.png"):
        assert scan(path).problem.kind == "unreadable"


def test_facts_survive_json() -> None:
    facts = MaskFacts(height=2, width=1, values=((3, 2),), palette={3: (1, 2, 3)}, border_pixels=1)
    assert MaskFacts.model_validate_json(facts.model_dump_json(exclude_defaults=True)) == facts
    image = ImageFacts(height=2, width=1, mode="RGB", digest="ab")
    assert ImageFacts.model_validate_json(image.model_dump_json(exclude_defaults=True)) == image


def test_borders_by_hand() -> None:
    # Along the middle row the 4 has 0 and 9 beside it: a border pixel, between them. Its neighbours above and below are
    # equal. No other pixel has unlike neighbours on both sides.
    mask = np.array([[0, 0, 0], [0, 4, 9], [0, 0, 0]], dtype=np.uint8)
    assert count_borders(mask) == (1, 1)
    mask[1, 1] = 9  # 0, 9, 9: a border without anything between
    assert count_borders(mask) == (1, 0)
    mask[1] = 5, 0, 9  # 5, 0, 9: below both
    assert count_borders(mask) == (1, 0)


def test_a_column_counts_like_a_row_and_a_pixel_once() -> None:
    column = np.array([[0], [4], [9]], dtype=np.uint8)
    assert count_borders(column) == count_borders(column.T) == (1, 1)
    both = np.array([[0, 0, 0], [0, 4, 9], [0, 9, 0]], dtype=np.uint8)
    assert count_borders(both) == (1, 1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2)])
def test_masks_too_small_for_a_border(shape: tuple[int, int]) -> None:
    assert count_borders(np.zeros(shape, dtype=np.uint8)) == (0, 0)


def blobs(seed: int, ids: tuple[int, ...]) -> np.ndarray:
    """Discs of random ids on a ground of the first, as drawn labels are."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:96, :128]
    mask = np.full((96, 128), ids[0], dtype=np.uint8)
    for _ in range(12):
        row, column, radius = rng.integers(0, 96), rng.integers(0, 128), rng.integers(6, 24)
        mask[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = rng.choice(ids)
    return mask


@pytest.mark.parametrize("ids", [tuple(range(11)), (0, 128, 255)], ids=["dense ids", "0 128 255"])
@pytest.mark.parametrize("scale", [0.5, 0.75, 1.5, 2])
@pytest.mark.parametrize("seed", range(3))
def test_interpolated_borders_are_told_from_drawn_ones(ids: tuple[int, ...], scale: float, seed: int) -> None:
    drawn = Image.fromarray(blobs(seed, ids))
    size = round(drawn.width * scale), round(drawn.height * scale)

    def share(image: Image.Image) -> float:
        border, between = count_borders(np.array(image))
        assert border >= MIN_BORDER_PIXELS
        return between / border

    smooth = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS
    assert share(drawn) < SUSPECT_SHARE
    assert share(drawn.resize(size, Image.Resampling.NEAREST)) < SUSPECT_SHARE
    assert all(share(drawn.resize(size, method)) > SUSPECT_SHARE for method in smooth)
