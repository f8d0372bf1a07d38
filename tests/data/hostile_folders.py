"""Broken data sets, each with one fault, and what the doctor has to say about it.

Each starts as a sound ``folder:`` data set of ten images, eight to train and two to validate, whose masks hold the
classes background, road, car and person, and is then broken in one way, as users' data are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("background", "road", "car", "person")
COLOURS = ((20, 20, 20), (128, 64, 128), (0, 0, 142), (220, 20, 60))
COUNT, HEIGHT, WIDTH = 10, 40, 56


@dataclass(frozen=True)
class Hostile:
    """A way to break a data set.

    Attributes:
        name: for the test's id.
        break_it: does it to a sound data set's folder.
        kind: of the one finding.
        severity: of it; training stops at an "error".
        says: what its line must contain.
    """

    name: str
    break_it: Callable[[Path], None]
    kind: str
    severity: str
    says: tuple[str, ...]


def write_sound_folder(root: Path) -> Path:
    """A data set without a fault."""
    for index in range(COUNT):
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "images" / f"{index:02d}.png")
        Image.fromarray(sound_mask(index)).save(root / "masks" / f"{index:02d}.png")
    write_classes(root, range(len(NAMES)))
    return root


def write_classes(root: Path, values: range | tuple[int, ...], more: str = "") -> None:
    """A classes.yaml with these raw values."""
    rows = zip(NAMES, COLOURS, values, strict=True)
    lines = [f"  - {{name: {name}, colour: {list(colour)}, value: {value}}}" for name, colour, value in rows]
    (root / "classes.yaml").write_text("\n".join(["classes:", *lines, more]) + "\n")


def sound_mask(index: int) -> np.ndarray:
    """Four regions, three of them on the first, uint8 (HEIGHT, WIDTH)."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[20:38, 4:50] = 1
    mask[4:16, 6 + index : 26 + index] = 2
    mask[6:18, 40:50] = 3
    return mask


def each_mask(root: Path, change: Callable[[Image.Image], Image.Image]) -> None:
    """Replace every mask."""
    for path in sorted((root / "masks").iterdir()):
        with Image.open(path) as image:
            changed = change(image)
        changed.save(path)


def each_value(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replace the values of every mask."""
    each_mask(root, lambda image: Image.fromarray(change(np.array(image))))


def _truncated_image(root: Path) -> None:
    path = root / "images" / "03.png"
    path.write_bytes(path.read_bytes()[:1000])


def _mask_is_text(root: Path) -> None:
    (root / "masks" / "04.png").write_text("I am not a picture")


def _mask_of_another_size(root: Path) -> None:
    path = root / "masks" / "05.png"
    with Image.open(path) as image:
        half = image.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.NEAREST)
    half.save(path)


def _image_without_mask(root: Path) -> None:
    (root / "masks" / "02.png").unlink()


def _mask_without_image(root: Path) -> None:
    (root / "images" / "06.png").unlink()


def _unknown_value(root: Path) -> None:
    path = root / "masks" / "01.png"
    mask = sound_mask(1)
    mask[0, :7] = 77
    Image.fromarray(mask).save(path)


def _black_and_white(root: Path) -> None:
    each_value(root, lambda mask: np.where(mask > 0, 255, 0).astype(np.uint8))


def _off_by_one(root: Path) -> None:
    each_value(root, lambda mask: mask + np.uint8(1))


def _zero_is_unlabelled(root: Path) -> None:
    each_value(root, lambda mask: np.pad(mask[1:] + np.uint8(1), ((1, 0), (0, 0))))


def _smoothed(mask: Image.Image) -> Image.Image:
    """Resized by two and back as a photograph is."""
    half = mask.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BILINEAR)
    return half.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)


def _resized_with_strays(root: Path) -> None:
    write_classes(root, (0, 60, 128, 255))
    each_value(root, lambda mask: np.array([0, 60, 128, 255], dtype=np.uint8)[mask])
    each_mask(root, _smoothed)


def _resized_to_other_ids(root: Path) -> None:
    each_mask(root, _smoothed)


def _coloured(mask: np.ndarray) -> np.ndarray:
    return np.array(COLOURS, dtype=np.uint8)[mask]


def _palette_as_rgb(root: Path) -> None:
    each_value(root, _coloured)


def _palette_as_grey(root: Path) -> None:
    each_mask(root, lambda image: Image.fromarray(_coloured(np.array(image))).convert("L"))


def _image_in_two_splits(root: Path) -> None:
    # Another encoding of the same pixels: the bytes differ.
    (root / "images" / "09.png").unlink()
    with Image.open(root / "images" / "00.png") as image:
        image.save(root / "images" / "09.tif")


def _deep_images(root: Path) -> None:
    for path in (root / "images").iterdir():
        grey = np.random.default_rng(int(path.stem)).integers(0, 4096, (HEIGHT, WIDTH), dtype=np.uint16)
        Image.fromarray(grey).save(path)


def _class_absent_from_val(root: Path) -> None:
    for path in (root / "masks" / "08.png", root / "masks" / "09.png"):
        mask = sound_mask(int(path.stem))
        mask[mask == 3] = 0
        Image.fromarray(mask).save(path)


def _unlabelled_mask(root: Path) -> None:
    Image.fromarray(np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)).save(root / "masks" / "07.png")


def _no_class_table(root: Path) -> None:
    (root / "classes.yaml").unlink()


def _list_names_one_file_in_two_splits(root: Path) -> None:
    (root / "splits").mkdir()
    (root / "splits" / "train.txt").write_text("\n".join(f"{index:02d}" for index in range(8)))
    (root / "splits" / "val.txt").write_text("07\n08\n09\n")


def _instance_ids(root: Path) -> None:
    ids = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    Image.fromarray(ids).save(root / "masks" / "00.png")


def _photographs_that_viewers_turn(root: Path) -> None:
    turn = Image.Exif()
    turn[0x0112] = 6
    for index in range(COUNT):
        path = root / "images" / f"{index:02d}.png"
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"), exif=turn)
        path.unlink()


HOSTILE = (
    Hostile("turned", _photographs_that_viewers_turn, "image-turned", "warning", ("10 images", "EXIF", "-auto-orient")),
    Hostile("truncated image", _truncated_image, "image-unreadable", "error", ("03.png cannot be read", "truncated")),
    Hostile("text as mask", _mask_is_text, "mask-unreadable", "error", ("04.png cannot be read", "no image format")),
    Hostile(
        "sizes", _mask_of_another_size, "size-mismatch", "error", ("56×40", "28×20", "05.png", "expected equal sizes")
    ),
    Hostile("no mask", _image_without_mask, "image-without-mask", "error", ("02.png", "without a mask")),
    Hostile("no image", _mask_without_image, "mask-without-image", "error", ("06.png", "without an image")),
    Hostile(
        "unknown value",
        _unknown_value,
        "values-unknown",
        "error",
        ("77 (7 pixels in 1 mask: 01.png)", "values 0–3, 255"),
    ),
    Hostile("0/255", _black_and_white, "masks-0-255", "error", ("all 10 masks hold only 0 and 255", "value: 255")),
    Hostile(
        "off by one", _off_by_one, "labels-off-by-one", "error", ("the values 1 to 4", "give the classes the values")
    ),
    Hostile("zero unlabelled", _zero_is_unlabelled, "labels-off-by-one", "error", ("0 to 4", "0 means unlabelled")),
    Hostile("strays", _resized_with_strays, "values-interpolated", "error", ("10 masks", "resizing or anti-aliasing")),
    Hostile(
        "resized ids", _resized_to_other_ids, "ids-interpolated", "warning", ("10 masks of 10", "nearest-neighbour")
    ),
    Hostile(
        "palette as RGB",
        _palette_as_rgb,
        "masks-are-colours",
        "error",
        ("RGB, 4 colours", "all are colours of the class"),
    ),
    Hostile(
        "palette as grey", _palette_as_grey, "palette-read-as-grey", "error", ("is the grey of", "without converting")
    ),
    Hostile(
        "duplicate",
        _image_in_two_splits,
        "duplicates-across-splits",
        "warning",
        ("1 image of val is also in train (09.tif = 00.png)",),
    ),
    Hostile(
        "listed twice",
        _list_names_one_file_in_two_splits,
        "duplicates-across-splits",
        "warning",
        ("1 image of val is also in train (07.png)",),
    ),
    Hostile("16 bits", _deep_images, "image-form", "error", ("9 files more like it", "value_range")),
    Hostile("class absent", _class_absent_from_val, "class-absent", "warning", ("person never occurs", "of val")),
    Hostile("unlabelled", _unlabelled_mask, "mask-unlabelled", "warning", ("1 mask of 10", "07.png")),
    Hostile("no class table", _no_class_table, "class-table-missing", "error", ("has no classes.yaml", "--fix-map")),
    Hostile("instance ids", _instance_ids, "values-too-many", "error", ("2,240 different values", "00.png")),
)


def write_hostile_folder(case: Hostile, root: Path) -> Path:
    """The broken data set of a case, in a new folder."""
    shutil.rmtree(root, ignore_errors=True)
    case.break_it(write_sound_folder(root))
    return root
