"""Images of one channel under a value range, and deep images without one."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import FLOAT, SIGNED, UNSIGNED, encoded, png_of, tiff_of
from PIL import Image

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data import open_dataset, read_image
from dropclass_deploy.data.images import encode_png

Builder = Callable[..., Path]
RANGE = (100.0, 1100.0)
# (v − 100) / 1000 · 255 by hand: 0 → below, 100 → 0, 600 → 127.5 to the even 128, 1000 → 229.5 to the even 230.
RAW, GREY = [[0, 100, 600], [1000, 1100, 60000]], [[0, 0, 128], [230, 255, 255]]


FILES = {
    "16-bit PNG": png_of(16, 0, 3, [struct.pack(">3H", *row) for row in RAW]),
    "16-bit TIFF": tiff_of(np.array(RAW, np.uint16), UNSIGNED),
    "16-bit TIFF, big-endian": tiff_of(np.array(RAW, np.uint16), UNSIGNED, ">"),
    "16-bit TIFF, compressed": encoded(Image.fromarray(np.array(RAW, np.uint16)), "TIFF", compression="tiff_lzw"),
    "32-bit unsigned TIFF": tiff_of(np.array(RAW, np.uint32), UNSIGNED),
    "32-bit signed TIFF": tiff_of(np.array(RAW, np.int32), SIGNED),
    "32-bit signed TIFF, big-endian": tiff_of(np.array(RAW, np.int32), SIGNED, ">"),
    "32-bit float TIFF": tiff_of(np.array(RAW, np.float32), FLOAT),
    "32-bit float TIFF, big-endian": tiff_of(np.array(RAW, np.float32), FLOAT, ">"),
    "16-bit PGM": b"P5 3 2 65535\n" + np.array(RAW, ">u2").tobytes(),
}


@pytest.mark.parametrize("name", FILES)
def test_deep_images_of_one_channel_become_three_equal_bytes(name: str) -> None:
    image = read_image(FILES[name], RANGE)
    assert (image.dtype, image.shape) == (np.uint8, (2, 3, 3))
    for channel in range(3):
        assert image[..., channel].tolist() == GREY


@pytest.mark.parametrize("name", FILES)
def test_deep_images_without_a_range_are_refused_with_the_key(name: str) -> None:
    with pytest.raises(
        DataError, match=r"more than 8 bits a channel; .*classes\.yaml, such as value_range: \[0, 4095\]"
    ):
        read_image(FILES[name])


def test_negative_and_huge_values() -> None:
    signed = np.array([[-32768, -1000, 0, 1000]], np.int16)
    assert read_image(tiff_of(signed, SIGNED), (-1000, 1000))[0, :, 0].tolist() == [0, 0, 128, 255]
    # Above 2³¹ a signed reading would be negative, and black.
    huge = np.array([[0, 2**31, 2**32 - 1]], np.uint32)
    assert read_image(tiff_of(huge, UNSIGNED), (0, 2**32 - 1))[0, :, 0].tolist() == [0, 128, 255]


def test_8_bit_grey_holds_raw_values_too() -> None:
    grey = np.array([[0, 50, 100]], np.uint8)
    # 50 of 100 is 127.5, and goes to the even 128.
    for content in (encode_png(grey), encoded(Image.merge("LA", [Image.fromarray(grey), Image.new("L", (3, 1), 9)]))):
        assert read_image(content, (0, 100))[0, :, 0].tolist() == [0, 128, 255]


def test_few_bits_are_taken_as_stored_not_as_stretched() -> None:
    # 4-bit values 0, 15, 3: of a range of 15, 3 is 51.
    assert read_image(png_of(4, 0, 3, [b"\x0f\x30"]), (0, 15))[0, :, 0].tolist() == [0, 255, 51]
    assert read_image(png_of(1, 0, 2, [b"\x40"]), (0, 2))[0, :, 0].tolist() == [0, 128]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_an_8_bit_colour_image_is_taken_as_it_is(mode: str) -> None:
    picture = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3)).convert(mode)
    content = encoded(picture, "TIFF" if mode == "CMYK" else "PNG")
    np.testing.assert_array_equal(read_image(content, (0, 5)), read_image(content))


DEEP_COLOUR = {
    "RGB PNG": png_of(16, 2, 1, [bytes(6)]),
    "RGBA PNG": png_of(16, 6, 1, [bytes(8)]),
    "grey and alpha PNG": png_of(16, 4, 1, [bytes(4)]),
    "RGB TIFF": tiff_of(np.zeros((1, 1, 3), np.uint16), UNSIGNED),
    "RGB TIFF, big-endian": tiff_of(np.zeros((1, 1, 3), np.uint16), UNSIGNED, ">"),
    "RGB PPM": b"P6 1 1 65535\n" + bytes(6),
}


@pytest.mark.parametrize("name", DEEP_COLOUR)
@pytest.mark.parametrize("value_range", [None, (0.0, 65535.0)])
def test_deep_colour_is_refused_with_and_without_a_range(name: str, value_range: tuple[float, float] | None) -> None:
    with pytest.raises(DataError, match=r"more than 8 bits in each of several channels.*save it with one channel"):
        read_image(DEEP_COLOUR[name], value_range)


def test_a_scaled_pgm_is_refused_because_its_raw_values_are_gone() -> None:
    with pytest.raises(DataError, match=r"its decoder scales the raw values; .*save it as PNG or TIFF"):
        read_image(b"P5 1 1 4095\n\x00\x05", (0, 4095))


def test_nan_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "scan.tif").write_bytes(tiff_of(np.array([[np.nan, 1]], np.float32), FLOAT))
    with pytest.raises(DataError, match=r"scan\.tif holds NaN at 1 of 2 pixels"):
        read_image(tmp_path / "scan.tif", (0, 1))


@pytest.mark.slow
def test_hostile_bytes_under_a_range_raise_nothing_but_data_errors() -> None:
    draw, refused = np.random.default_rng(0), 0
    for whole in FILES.values():
        for _ in range(40):
            broken = np.frombuffer(whole, np.uint8).copy()
            broken[draw.integers(0, len(broken), 3)] = draw.integers(0, 256, 3)
            try:
                read_image(broken.tobytes(), RANGE)
            except DataError:
                refused += 1
    assert refused > 20


@pytest.fixture
def scans(tmp_path: Path, make_folder: Builder) -> Path:
    """Ten 16-bit images of 12-bit values with a range of [50, 4000] in classes.yaml."""
    root = make_folder([f"{number}" for number in range(10)])
    for number, path in enumerate(sorted((root / "images").iterdir())):
        raw = np.random.default_rng(number).integers(0, 4096, (4, 6)).astype(np.uint16)
        Image.fromarray(raw).save(path)
    with (root / "classes.yaml").open("a") as file:
        file.write("value_range: [50, 4000]\n")
    return root


def test_a_16_bit_folder_against_the_formula_pixel_by_pixel(scans: Path) -> None:
    dataset = open_dataset(f"folder:{scans}", "all")
    assert dataset.value_range == (50.0, 4000.0)
    for index in range(len(dataset)):
        with Image.open(dataset.image_path(index)) as image:
            stored = np.array(image)
        expected = [[round(min(max((float(v) - 50) / 3950 * 255, 0), 255)) for v in row] for row in stored.tolist()]
        for channel in range(3):
            assert dataset.image(index)[..., channel].tolist() == expected
        assert dataset.mask(index).shape == (4, 6)


def test_a_16_bit_folder_without_a_range_names_the_file_and_the_key(scans: Path) -> None:
    text = (scans / "classes.yaml").read_text()
    (scans / "classes.yaml").write_text(text.replace("value_range: [50, 4000]", ""))
    dataset = open_dataset(f"folder:{scans}", "all")
    assert dataset.value_range is None
    with pytest.raises(DataError, match=r"images/0\.png has more than 8 bits.*value_range"):
        dataset.image(0)


def test_other_formats_have_no_range() -> None:
    assert open_dataset("synthetic:size=32x32,train=1,val=1,unbiased=1").value_range is None
