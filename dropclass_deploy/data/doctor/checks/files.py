"""Files that are missing, damaged, of a form that is not taken, or of another size than their partner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.doctor.evidence import Evidence, Sample
from dropclass_deploy.data.doctor.facts import FileFacts, Problem
from dropclass_deploy.data.doctor.findings import SHOWN, Finding, about, about_problems, names, plural
from dropclass_deploy.data.file_pairs import pair_files


def check_splits(evidence: Evidence) -> Iterator[Finding]:
    """Splits whose files cannot be listed, or that are empty."""
    for split, error in evidence.unlisted.items():
        yield Finding("split-unlisted", "error", error.found, error.expected, error.remedy, split)
    for split, files in evidence.splits.items():
        if not files.stems:
            found = f"the split {split!r} of {evidence.layout.spec} is empty"
            yield Finding("split-empty", "error", found, "at least one image with its mask", "add files to it", split)
    known = sorted(evidence.layout.splits)
    if "train" not in known:
        found = f"{evidence.layout.spec} has no split 'train', only {', '.join(known)}"
        yield Finding(
            "split-train-missing", "note", found, remedy="name the splits in the recipe: splits: {train: …, val: …}"
        )


def check_partners(evidence: Evidence) -> Iterator[Finding]:
    """Images without a mask and masks without an image, in the words of the loader that would refuse them."""
    for split in evidence.splits:
        samples = evidence.of_split(split)
        unlabelled = [sample for sample in samples if sample.image is not None and sample.mask is None]
        orphans = [sample for sample in samples if sample.image is None]
        for kind, lacking in (("image-without-mask", unlabelled), ("mask-without-image", orphans)):
            if lacking:
                yield _lacking(evidence, split, kind, lacking)


def _lacking(evidence: Evidence, split: str, kind: str, samples: list[Sample]) -> Finding:
    files = evidence.splits[split]
    paths = [path for sample in samples for path in (sample.image, sample.mask) if path is not None]
    try:
        pair_files(files.images, files.masks, [sample.stem for sample in samples], files.mask_folder)
    except DataError as error:
        return Finding(
            kind, "error", error.found, error.expected, error.remedy, split, tuple(paths[:SHOWN]), len(samples)
        )
    raise AssertionError("samples without a partner were paired")


def check_readable(evidence: Evidence) -> Iterator[Finding]:
    """Files that are damaged, and files that hold pixels of a form that is not taken (16 bits without a range)."""
    groups: tuple[tuple[str, Mapping[Path, FileFacts]], ...] = (("image", evidence.images), ("mask", evidence.masks))
    for what, facts in groups:
        problems = [(path, fact.problem) for path, fact in facts.items() if fact.problem is not None]
        for kind in ("unreadable", "form"):
            of_kind: list[tuple[Path, Problem]] = [item for item in problems if item[1].kind == kind]
            if of_kind:
                yield about_problems(evidence, of_kind, f"{what}-{kind}", "error")


_TURN = "turn the pixels for good (mogrify -auto-orient), and see that the masks fit"


def check_turns(evidence: Evidence) -> Iterator[Finding]:
    """Pictures that viewers, and perhaps whoever drew the masks, see turned."""
    turned = {path: facts for path, facts in evidence.images.items() if facts.turned}
    if turned:
        found = f"{plural(len(turned), 'image')} would be shown turned or mirrored (EXIF tag), which is not applied: "
        yield about(evidence, turned, "image-turned", "warning", found + names(list(turned)), remedy=_TURN)


def check_sizes(evidence: Evidence) -> Iterator[Finding]:
    """Masks of another size than their image."""
    unequal = {
        sample.mask: sample.image
        for sample in evidence.samples
        if sample.image is not None and sample.mask is not None and _unequal(evidence, sample.image, sample.mask)
    }
    if not unequal:
        return
    mask, image = next(iter(unequal.items()))
    found = f"the image {image} is {_size(evidence.images[image])} and its mask {mask} {_size(evidence.masks[mask])}"
    others = list(unequal)[1:]
    if others:
        found += f", and {plural(len(others), 'pair')} more differ ({names(others)})"
    remedy = "export the masks again at the size of their images"
    if evidence.images[image].turned:
        remedy = "the picture's EXIF tag turns it for viewers, and is not applied here: " + _TURN
    yield about(evidence, unequal, "size-mismatch", "error", found, expected="equal sizes", remedy=remedy)


def _unequal(evidence: Evidence, image: Path, mask: Path) -> bool:
    sizes = evidence.images[image].size, evidence.masks[mask].size
    # 0×0 is a file whose header could not be read, which is told elsewhere.
    return sizes[0] != sizes[1] and (0, 0) not in sizes


def _size(facts: FileFacts) -> str:
    return f"{facts.width}×{facts.height}"
