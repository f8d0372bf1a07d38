"""Which stems belong to which split: rules in ``classes.yaml``, list files, or the first four fifths and the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from reprlib import repr as short
from typing import Any

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.file_pairs import IMAGE_SUFFIXES, natural_order

SplitRules = Mapping[str, Sequence[str]]
"""Split name → rules; each is a range "first..last", a glob or a stem."""

_RANGE = re.compile(r"(.+?)\.\.(.+)")
_SHOWN = 3


def parse_split_rules(value: Any) -> SplitRules:
    """Check the ``splits`` of a class table.

    Raises:
        DataError: when it is not a mapping from names to text or lists of text.
    """
    if not isinstance(value, dict) or not value:
        raise DataError(f"splits is {short(value)}", expected='{train: "001..240", val: "241..300"}')
    return {_split_name(name): _rules(rule, name) for name, rule in value.items()}


def select_stems(rules: Sequence[str], stems: Sequence[str], where: str) -> list[str]:
    """The stems that any of the rules names, in the order of ``stems``.

    Args:
        rules: ranges (both ends belong to it), globs, stems or file names.
        stems: all stems, sorted.
        where: for the error message, for example "splits.val in classes.yaml".

    Raises:
        DataError: when a rule matches nothing or the end of a range does not exist.
    """
    known = {stem: place for place, stem in enumerate(stems)}
    chosen: set[int] = set()
    for rule in rules:
        matched = _match(rule, stems, known, where)
        if not matched:
            raise DataError(
                f"{where}: {rule!r} matches none of the {len(stems)} files",
                expected='a stem, a glob or a range "first..last"',
                remedy=f"the files are {_ends(stems)}",
            )
        chosen.update(matched)
    return [stems[place] for place in sorted(chosen)]


def stem_of(name: str) -> str:
    """The stem of a stem, a file name or a relative path."""
    last = re.split(r"[/\\]", name)[-1]
    suffix = Path(last).suffix
    return last.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else last


def read_split_file(path: Path, stem_of_line: Callable[[str], str] = stem_of) -> list[str]:
    """Stems of a list file: one stem or file name a line; blank lines and lines that start with # are skipped.

    Args:
        path: of the list.
        stem_of_line: what a line without its outer spaces names.

    Raises:
        DataError: when it is no text, empty, or names a file twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"the split list {path} cannot be read as text", expected="one stem a line") from error
    stems = [stem_of_line(line.strip()) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1}) if len(set(stems)) < len(stems) else []
    if twice:
        raise DataError(f"the split list {path} names {twice[0]!r} twice", expected="each file once")
    if not stems:
        raise DataError(f"the split list {path} is empty", expected="one stem a line")
    return stems


def default_splits(stems: Sequence[str]) -> dict[str, list[str]]:
    """train: the first four fifths of the sorted stems; val: the last fifth; all: both.

    A cut in the middle, not a draw: neighbouring frames of a video are nearly equal and must not lie on both sides.
    """
    ordered = sorted(stems, key=natural_order)
    cut = len(ordered) * 4 // 5
    return {"train": ordered[:cut], "val": ordered[cut:], "all": ordered}


def missing_split(place: str, split: str, found: Sequence[str]) -> DataError:
    """The error for a split that does not exist.

    Args:
        place: what has no such split, with the article if any: "data/x has no split".
        split: the one that was asked for.
        found: those that exist.
    """
    remedy = "choose one of these: --split NAME"
    # Training asks for these two by itself, and says with a recipe key what they are called.
    if split in ("train", "val"):
        remedy += f", or in training --set splits.{split}=NAME"
    return DataError(f"{place} {split!r}", expected="one of " + ", ".join(found), remedy=remedy)


def _split_name(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise DataError(f"a split is named {short(name)}", expected="text such as train or val")
    return name


def _rules(rule: Any, name: str) -> list[str]:
    rules = rule if isinstance(rule, list) else [rule]
    # YAML reads an unquoted 010 as the octal number 8: a number may not be the file that was meant.
    if not rules or not all(isinstance(item, str) and item for item in rules):
        raise DataError(
            f"splits.{name} is {short(rule)}",
            expected='a range "first..last", a glob or a list of stems, each in quotes',
        )
    return rules


def _match(rule: str, stems: Sequence[str], known: Mapping[str, int], where: str) -> list[int]:
    stem = rule if rule in known else stem_of(rule)
    if stem in known:
        return [known[stem]]
    ends = _RANGE.fullmatch(rule)
    if ends is None:
        return [place for place, stem in enumerate(stems) if fnmatchcase(stem, rule)]
    missing = [end for end in ends.groups() if end not in known]
    if missing:
        raise DataError(f"{where}: there is no file {missing[0]!r}", remedy=f"the files are {_ends(stems)}")
    return list(range(known[ends[1]], known[ends[2]] + 1))


def _ends(stems: Sequence[str]) -> str:
    if len(stems) <= _SHOWN:
        return ", ".join(stems) or "none"
    return f"{stems[0]}, {stems[1]} … {stems[-1]}"
