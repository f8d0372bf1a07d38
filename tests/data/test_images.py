from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded, png_of
from PIL import Image

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.images import (
    array_digest,
    colour_mask,
    encode_png,
    image_size,
    overlay,
    read_image,
    read_mask,
    resize_image,
    write_png,
)

CLASSES = ClassTable(names=("a", "b"), palette=((10, 20, 30), (200, 100, 0)))


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_png_round_trip_keeps_every_pixel(picture: np.ndarray, tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", picture)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), picture)
    np.testing.assert_array_equal(read_image(encode_png(picture)), picture)


def test_greyscale_becomes_three_equal_channels(picture: np.ndarray) -> None:
    grey = picture[..., 0]
    np.testing.assert_array_equal(read_image(encode_png(grey)), np.stack([grey] * 3, axis=-1))


def test_alpha_is_dropped_and_colours_stay(picture: np.ndarray) -> None:
    transparent = np.dstack([picture, np.full(picture.shape[:2], 3, np.uint8)])
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(transparent))), picture)


def test_palette_with_transparency_gives_its_colours() -> None:
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    image.putpalette([9, 8, 7, 1, 2, 3])
    content = encoded(image, transparency=bytes([0, 255]))
    assert read_image(content).tolist() == [[[9, 8, 7], [1, 2, 3]]]


def test_exif_orientation_is_not_applied(picture: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(picture), "JPEG", exif=exif, quality=95)
    assert read_image(content).shape == picture.shape


@pytest.mark.parametrize(("depth", "kind", "row"), [(16, 2, bytes(6)), (16, 0, bytes(2)), (16, 6, bytes(8))])
def test_more_than_8_bits_are_refused(depth: int, kind: int, row: bytes) -> None:
    with pytest.raises(DataError, match="more than 8 bits"):
        read_image(png_of(depth, kind, 1, [row]))


def test_text_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("this is no image")
    with pytest.raises(DataError, match=r"notes\.png cannot be read as an image \(no image format"):
        read_image(path)


def test_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.png"
    path.touch()
    with pytest.raises(DataError, match=r"empty\.png cannot be read"):
        read_image(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_truncated_file_is_refused(kind: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = tmp_path / "half"
    content = encoded(Image.fromarray(noise), kind)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="half cannot be read as an image"):
        read_image(path)


def test_missing_file_and_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        read_image(tmp_path / "gone.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
# 35 pixels: above 30, where Pillow only warns, and above twice 10, where it refuses.
@pytest.mark.parametrize("limit", [10, 30])
def test_decompression_bomb_is_refused(limit: int, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match=f"too many pixels.*at most {limit} pixels"):
        read_image(encode_png(picture))


def test_hostile_bytes_raise_nothing_but_data_errors(picture: np.ndarray) -> None:
    draw = random.Random(0)
    messages: list[str] = []
    for kind in ("PNG", "JPEG", "BMP", "GIF"):
        whole = encoded(Image.fromarray(picture), kind)
        for _ in range(60):
            broken = bytearray(whole)
            for _ in range(4):
                broken[draw.randrange(len(broken))] = draw.randrange(256)
            try:
                read_image(bytes(broken))
            except DataError as error:
                messages.append(str(error))
    assert len(messages) > 20
    assert not any("\n" in message for message in messages)


def test_palette_mask_gives_indices(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)
    image = Image.fromarray(ids).convert("P")
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), ids)


def test_16_bit_mask_keeps_its_values(tmp_path: Path) -> None:
    ids = np.array([[0, 300], [65535, 1]], dtype=np.uint16)
    Image.fromarray(ids).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), ids)


def test_1_bit_mask_gives_0_and_1(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[1, 0]]


@pytest.mark.parametrize(("depth", "row", "ids"), [(4, b"\x0f\x30", [0, 15, 3]), (2, b"\x1b", [0, 1, 2, 3])])
def test_2_and_4_bit_masks_give_what_is_stored(depth: int, row: bytes, ids: list[int], tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(png_of(depth, 0, len(ids), [row]))
    assert read_mask(tmp_path / "m.png").tolist() == [ids]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colour_mask_file_is_refused(mode: str, tmp_path: Path) -> None:
    Image.new(mode, (2, 2)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=rf"m\.png is a {mode} picture.*single-channel ids"):
        read_mask(tmp_path / "m.png")


def test_image_size_reads_height_first(picture: np.ndarray, tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", picture)
    assert image_size(tmp_path / "x.png") == (5, 7)


@pytest.mark.parametrize("array", [np.zeros((2, 2), np.int64), np.zeros((2, 2, 4), np.uint8), np.zeros(3, np.uint8)])
def test_encode_png_refuses_what_is_no_picture(array: np.ndarray) -> None:
    with pytest.raises(DataError, match="is no picture"):
        encode_png(array)


def test_resize_to_the_same_size_is_the_same_array(picture: np.ndarray) -> None:
    assert resize_image(picture, (5, 7)) is picture


def test_resize_averages_when_it_shrinks() -> None:
    board = np.indices((32, 32)).sum(axis=0) % 2 * 200
    small = resize_image(np.stack([board] * 3, axis=-1).astype(np.uint8), (4, 8))
    assert small.shape == (4, 8, 3)
    # Without antialiasing the samples would be 0 or 200; with it each is near the mean 100, ± the triangle's ripple.
    assert abs(small.astype(int) - 100).max() <= 15


def test_colour_mask_paints_unknown_ids_black() -> None:
    mask = np.array([[0, 1, 2, 255]], dtype=np.uint8)
    assert colour_mask(mask, CLASSES).tolist() == [[[10, 20, 30], [200, 100, 0], [0, 0, 0], [0, 0, 0]]]
    assert colour_mask(np.array([[-1]]), CLASSES).tolist() == [[[0, 0, 0]]]


def test_overlay_is_the_weighted_mean_and_keeps_ignored_pixels() -> None:
    image = np.full((1, 2, 3), 100, dtype=np.uint8)
    mask = np.array([[1, 255]], dtype=np.uint8)
    # 0.75·100 + 0.25·(200, 100, 0)
    assert overlay(image, mask, CLASSES, opacity=0.25).tolist() == [[[125, 100, 75], [100, 100, 100]]]


def test_overlay_refuses_other_sizes_and_opacities() -> None:
    image, mask = np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3), np.uint8)
    with pytest.raises(DataError, match="equal sizes"):
        overlay(image, mask.T, CLASSES)
    with pytest.raises(DataError, match="from 0 to 1"):
        overlay(image, mask, CLASSES, opacity=float("nan"))


def test_array_digest_depends_on_dtype_shape_and_bytes() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    variants = [array, array.reshape(3, 2), array.astype(np.int8), array + np.uint8(1)]
    assert len({array_digest(variant) for variant in variants}) == 4


def test_array_digest_is_the_documented_hash_and_blind_to_memory_order() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert array_digest(array) == hashlib.sha256(b"|u1 (2, 3) " + array.tobytes()).hexdigest()
    assert array_digest(np.asfortranarray(array)) == array_digest(array)
