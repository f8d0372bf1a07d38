"""Masks of image files, written as PNGs at each image's source size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dropclass_deploy.core.errors import DataError, UserError
from dropclass_deploy.data.file_pairs import IMAGE_SUFFIXES
from dropclass_deploy.data.images import overlay as overlay_of
from dropclass_deploy.data.images import write_png
from dropclass_deploy.serving.evidence import check_writable
from dropclass_deploy.serving.segmenter import Segmenter

_NAMED = 5
"""Broken images that one message names."""


@dataclass(frozen=True)
class PredictedFile:
    """What was written for one image.

    Attributes:
        image: the input file.
        mask: ``STEM.png``, class ids.
        overlay: ``STEM.overlay.png``, class colours over the image, or None.
        latency_ms: by stage of the segmenter.
    """

    image: Path
    mask: Path
    overlay: Path | None
    latency_ms: dict[str, float]

    def __str__(self) -> str:
        return str(self.mask)


def expand_inputs(paths: Iterable[Path]) -> list[Path]:
    """Image files: a folder stands for the images in it (not below it), sorted by name.

    Raises:
        DataError: for a path that does not exist, a folder without images, or nothing at all.
    """
    files = [file for path in paths for file in _files_of(path)]
    if not files:
        raise DataError("no image was named", expected="image files, or folders of them")
    return files


def predict_files(
    segmenter: Segmenter, paths: Sequence[Path], output: Path, overlay: bool = False, *, overwrite: bool = False
) -> Iterator[PredictedFile]:
    """Segment image files one after another.

    Names are checked before the first is read. A file that cannot be decoded, or that the network cannot take, does not
    stop the others: it is named in one DataError after the last of them, and what was written stays.

    Args:
        segmenter: an opened artifact.
        paths: image files, or folders of them.
        output: folder, made when it is missing.
        overlay: also write the class colours over the image.
        overwrite: replace masks that are there; labels of the same stems, perhaps.

    Yields:
        One result for each image, once its files are written.

    Raises:
        DataError: when two outputs would have one name, an output would replace an input, or images are broken.
        UserError: when ``output`` cannot be written to, or holds files of those names.
    """
    files = expand_inputs(paths)
    _check_names(files, output, overlay)
    if not overwrite:
        _refuse_existing(files, output, overlay)
    check_writable(_targets(files[0], output, overlay)[0], "-o")
    return _predicted(segmenter, files, output, overlay)


def _predicted(segmenter: Segmenter, files: list[Path], output: Path, overlay: bool) -> Iterator[PredictedFile]:
    broken: list[UserError] = []
    for path in files:
        try:
            image = segmenter.read_image(path)
            result = segmenter(image)
        except DataError as error:
            broken.append(error)
            continue
        except UserError as error:
            broken.append(DataError(f"{path}: {error.found}", expected=error.expected, remedy=error.remedy))
            continue
        mask_path, overlay_path = _targets(path, output, overlay)
        write_png(mask_path, result.mask)
        if overlay_path is not None:
            write_png(overlay_path, overlay_of(image, result.mask, segmenter.classes))
        yield PredictedFile(path, mask_path, overlay_path, result.latency_ms)
    if broken:
        raise DataError(
            f"{len(broken)} of {len(files)} images gave no mask: "
            + " / ".join(str(item) for item in broken[:_NAMED])
            + (" …" if len(broken) > _NAMED else ""),
            remedy=f"masks of the other {len(files) - len(broken)} were written to {output}"
            if len(broken) < len(files)
            else "",
        )


def _refuse_existing(files: list[Path], output: Path, overlay: bool) -> None:
    targets = [target for path in files for target in _targets(path, output, overlay) if target is not None]
    there = [target for target in targets if target.exists()]
    if there:
        raise UserError(
            f"{there[0]} exists already" + (f", and {len(there) - 1} more" if len(there) > 1 else ""),
            expected="an output folder without files of these names (they may be labels)",
            remedy="choose another folder with -o, or pass --overwrite to replace them",
        )


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"{path} does not exist", expected="an image file, or a folder of images")
        return [path]
    found = sorted(item for item in path.iterdir() if item.is_file() and item.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DataError(f"the folder {path} holds no image", expected=f"files that end in {', '.join(IMAGE_SUFFIXES)}")
    return found


def _targets(path: Path, output: Path, overlay: bool) -> tuple[Path, Path | None]:
    return output / f"{path.stem}.png", output / f"{path.stem}.overlay.png" if overlay else None


def _check_names(files: list[Path], output: Path, overlay: bool) -> None:
    sources = {path.resolve() for path in files}
    owners: dict[Path, Path] = {}
    for path in files:
        for target in filter(None, _targets(path, output, overlay)):
            if target in owners:
                raise DataError(
                    f"{owners[target]} and {path} would both be written to {target}",
                    expected="inputs whose names differ before the suffix",
                    remedy="run them one after another into different folders",
                )
            if target.resolve() in sources:
                raise DataError(
                    f"{target} is an input and would be overwritten", remedy="choose another folder with -o"
                )
            owners[target] = path
