"""Which image file belongs to which mask file: by equal stems."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dropclass_deploy.core.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
MASK_ENDINGS = ("_mask", "_label", "_labels")
_SHOWN = 3

Files = Mapping[str, Path]


@dataclass(frozen=True)
class FilePair:
    """An image and its mask."""

    stem: str
    image: Path
    mask: Path


def located(location: str) -> Path | None:
    """The path after the colon of ``FORMAT:PATH``, ~ expanded; None when it is empty or does not exist."""
    try:
        path = Path(location).expanduser()
    except RuntimeError:  # ~ of an unknown user
        return None
    return path if location and path.exists() else None


def natural_order(stem: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that reads digits as numbers: frame2 before frame10, and 001 before 002 as ever."""
    parts = re.findall(r"[0-9]+|[^0-9]+", stem)
    # Numbers before text, so that parts of unlike kind never meet in a comparison; the stem itself parts 1 and 01.
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts], stem


def find_images(folder: Path) -> dict[str, Path]:
    """Image files of a folder by stem; hidden files and other kinds are skipped.

    Raises:
        DataError: when the folder is missing, two images share a stem, or a link leads nowhere.
    """
    return _by_stem(folder, IMAGE_SUFFIXES)


def find_masks(folder: Path, stems: Iterable[str]) -> dict[str, Path]:
    """Lossless mask files of a folder by the stem of their image.

    A mask belongs to the image with its own stem, or else with its stem less ``_mask``, ``_label`` or ``_labels``.

    Raises:
        DataError: when the folder is missing or two masks belong to one image.
    """
    files, images = _by_stem(folder, MASK_SUFFIXES), set(stems)
    masks = {stem: path for stem, path in files.items() if stem in images}
    for stem, path in files.items():
        if stem in masks:
            continue
        owner = next((stem.removesuffix(end) for end in MASK_ENDINGS if stem.removesuffix(end) in images), stem)
        if owner in masks:
            raise DataError(f"two masks belong to the image {owner!r}: {masks[owner]} and {path}", remedy="remove one")
        masks[owner] = path
    return masks


def pair_files(images: Files, masks: Files, stems: Iterable[str], mask_folder: Path) -> list[FilePair]:
    """The pairs of the given stems, in their order.

    Raises:
        DataError: listing the first stems that lack an image or a mask, and how many do.
    """
    wanted = list(stems)
    unlabelled = [stem for stem in wanted if stem in images and stem not in masks]
    if unlabelled:
        raise _without_mask(unlabelled, images, mask_folder)
    orphans = [stem for stem in wanted if stem not in images]
    if orphans:
        named = [masks[stem].name if stem in masks else stem for stem in orphans]
        raise DataError(
            f"{_listing(named)} without an image of the same stem ({len(orphans)} of {len(wanted)})",
            expected="one image for each mask and each stem of a split",
            remedy="add the images, or leave these out of the split",
        )
    return [FilePair(stem, images[stem], masks[stem]) for stem in wanted]


def _without_mask(stems: list[str], images: Files, folder: Path) -> DataError:
    lossy = [path for stem in stems for path in folder.glob(f"{_literal(stem)}.*") if path.suffix.lower() in _lossy()]
    if lossy:
        return DataError(
            f"the mask {lossy[0]} is a {lossy[0].suffix} file",
            expected="a lossless mask (.png, .bmp or .tif): JPEG and WebP change ids at every edge",
            remedy="export the masks again as PNG; converting this file does not bring its ids back",
        )
    return DataError(
        f"{_listing([images[stem].name for stem in stems])} without a mask in {folder} ({len(stems)} in all)",
        expected="one mask for each image, with the same stem",
        remedy="add the masks, or leave these images out of the split",
    )


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"the folder {folder} does not exist", expected="a folder of image files")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in suffixes:
            continue
        if path.is_symlink() and not path.exists():
            raise DataError(
                f"{path} is a link to {path.readlink()}, which is not there",
                remedy="bring the files back (is the disk mounted?), or remove the link",
            )
        if not path.is_file():
            continue
        if path.stem in found:
            raise DataError(
                f"{found[path.stem].name} and {path.name} in {folder} share a stem",
                expected="one file a stem",
                remedy="remove or rename one of them",
            )
        found[path.stem] = path
    return found


def _lossy() -> set[str]:
    return set(IMAGE_SUFFIXES) - set(MASK_SUFFIXES)


def _literal(text: str) -> str:
    """``text`` with the glob characters taken literally."""
    return re.sub(r"([*?\[])", r"[\1]", text)


def _listing(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
