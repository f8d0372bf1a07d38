"""The same picture twice: by the hash of the decoded pixels, so that a copy in another format counts too."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from dropclass_deploy.data.doctor.evidence import Evidence
from dropclass_deploy.data.doctor.findings import Finding, about, agree, plural

UNIONS = ("all", "trainval")
"""Names of splits that are made of others."""
_SHOWN = 3


def check_duplicates(evidence: Evidence) -> Iterator[Finding]:
    """Pictures in two splits (a warning: figures on one are too good) and twice in one split (a note)."""
    by_split = {split: _by_picture(evidence, split) for split in evidence.splits}
    for first, second in combinations(by_split, 2):
        if not _may_overlap(first, second):
            yield from _across(evidence, (first, by_split[first]), (second, by_split[second]))
    for split, pictures in by_split.items():
        yield from _inside(evidence, split, pictures)


_Pictures = dict[str, list[Path]]


def _by_picture(evidence: Evidence, split: str) -> _Pictures:
    """Image files by digest; files without one (unreadable) are told elsewhere."""
    pictures: _Pictures = {}
    for sample in evidence.of_split(split):
        digest = evidence.images[sample.image].digest if sample.image is not None else ""
        if sample.image is not None and digest:
            pictures.setdefault(digest, []).append(sample.image)
    return pictures


def _may_overlap(first: str, second: str) -> bool:
    """Splits that are made of others: train in trainval or trainaug, anything in all."""
    both_train = first.startswith("train") and second.startswith("train")
    return both_train or first in UNIONS or second in UNIONS


def _across(evidence: Evidence, first: tuple[str, _Pictures], second: tuple[str, _Pictures]) -> Iterator[Finding]:
    (name, pictures), (other, others) = first, second
    shared = [digest for digest in others if digest in pictures]
    if not shared:
        return
    copies = [path for digest in shared for path in others[digest]]
    examples = ", ".join(_pair(others[digest][0], pictures[digest][0]) for digest in shared[:_SHOWN])
    more = f" and {len(shared) - _SHOWN} more" if len(shared) > _SHOWN else ""
    verb = agree(len(copies), "is", "are")
    yield about(
        evidence,
        copies,
        "duplicates-across-splits",
        "warning",
        f"{plural(len(copies), 'image')} of {other} {verb} also in {name} ({examples}{more}): "
        f"figures on {other} would be too good",
        expected="no picture in two splits",
        remedy=f"take them out of {name} or {other}",
    )


def _inside(evidence: Evidence, split: str, pictures: _Pictures) -> Iterator[Finding]:
    groups = [paths for paths in pictures.values() if len(paths) > 1]
    if not groups:
        return
    examples = ", ".join(_pair(paths[1], paths[0]) for paths in groups[:_SHOWN])
    more = f" and {len(groups) - _SHOWN} more" if len(groups) > _SHOWN else ""
    copies = [path for paths in groups for path in paths[1:]]
    verb = agree(len(copies), "is", "are")
    yield about(
        evidence,
        copies,
        "duplicates-inside-split",
        "note",
        f"{plural(len(copies), 'image')} of {split} {verb} there more than once ({examples}{more})",
        remedy="keep one of each unless the weight is meant",
    )


def _pair(copy: Path, original: Path) -> str:
    return f"{copy.name} = {original.name}" if copy.name != original.name else copy.name
