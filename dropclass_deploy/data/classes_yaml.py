"""``classes.yaml``: names, colours and raw mask values of a user's own data set.

The main form:

```yaml
classes:
  - {name: background, colour: [0, 0, 0], value: 0}      # value or values: [..]; default: the position, 0, 1, 2 …
  - {name: cytoplasm, colour: [0, 128, 0], value: 128}
  - {name: nucleus, colour: [255, 0, 0], value: 255}
ignore: [200]                                            # raw values that count nowhere
splits: {train: "001..240", val: "241..300"}             # optional: "first..last", a glob, or a list of stems
root: ../my-data                                         # optional: where images/ and masks/ lie; default: beside this file
value_range: [0, 4095]                                   # optional: raw values that become 0 and 255 (images of one channel)
```

The parallel form, for tables that exist already: ``names`` (a list, or {id: name}), ``colours`` (a list) and
``values`` ({raw value: id}, {raw value: name}, {name: raw value} or a list, one entry a class). American spellings and
the usual synonyms are taken (``_SPELLINGS``); an unknown key is refused.

Without ``ignore``, the raw value 255 is ignored as is usual, unless it is the value of a class. ``ignore: []`` ignores
nothing.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as short
from typing import Any

from pydantic import ValidationError

from dropclass_deploy.core.classes import IGNORE_INDEX, ClassTable, Colour
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.preprocess import ValueRange, is_value_range
from dropclass_deploy.data.label_map import MAX_RAW_VALUE, LabelMap
from dropclass_deploy.data.split_rules import SplitRules, parse_split_rules
from dropclass_deploy.data.yaml_file import canonical_keys, integer_of, list_of, read_yaml_mapping, text_of

EXAMPLE = "classes: [{name: background, colour: [0, 0, 0], value: 0}, {name: object, colour: [255, 0, 0], value: 255}]"
_SPELLINGS = {
    "classes": "classes",
    "names": "names",
    "colours": "colours",
    "colors": "colours",
    "palette": "colours",
    "values": "values",
    "mapping": "values",
    "map": "values",
    "ignore": "ignore",
    "ignore_value": "ignore",
    "ignore_values": "ignore",
    "ignore_index": "ignore",
    "splits": "splits",
    "root": "root",
    # Not "window": radiology writes a window as centre and width.
    "value_range": "value_range",
    "image_range": "value_range",
    "intensity_range": "value_range",
}
_CLASS_SPELLINGS = {"name": "name", "colour": "colour", "color": "colour", "value": "values", "values": "values"}


@dataclass(frozen=True)
class ClassesFile:
    """What a ``classes.yaml`` says.

    Attributes:
        classes: names and colours.
        labels: raw mask value → class id.
        splits: rules by split name, or None when the file names none.
        root: the folder that holds images and masks.
        value_range: raw image values that become 0 and 255, or None for 8-bit images as they are.
    """

    classes: ClassTable
    labels: LabelMap
    splits: SplitRules | None
    root: Path
    value_range: ValueRange | None = None


@dataclass
class _Draft:
    """The class table while it is read; one entry a class in each list."""

    names: list[str] = field(default_factory=list)
    colours: list[Any] | None = None
    values: list[list[int]] = field(default_factory=list)
    ignored: list[int] = field(default_factory=list)


def read_classes_yaml(path: Path) -> ClassesFile:
    """Read and check a class table.

    Raises:
        DataError: naming the file and the key, when anything in it does not fit.
    """
    content = read_yaml_mapping(path)
    try:
        table = canonical_keys(content, _SPELLINGS, "the file")
        draft = _draft(table)
        classes = _class_table(draft)
        labels = LabelMap(
            {raw: index for index, values in enumerate(draft.values) for raw in values},
            _ignored(table, draft),
            remedy=f"add it to {path} (values of a class, or ignore), or correct the mask",
        )
        root = path.parent / text_of(table.get("root", "."), "root")
        splits = parse_split_rules(table["splits"]) if table.get("splits") is not None else None
        value_range = _value_range(table["value_range"]) if table.get("value_range") is not None else None
    except DataError as error:
        remedy = error.remedy or "correct the file"
        raise DataError(f"{path}: {error.found}", expected=error.expected, remedy=remedy) from error
    return ClassesFile(classes, labels, splits, root, value_range)


def _draft(table: Mapping[str, Any]) -> _Draft:
    if "classes" not in table:
        return _parallel_form(table)
    both = [key for key in ("names", "colours", "values") if key in table]
    if both:
        raise DataError(
            f"'classes' and {both[0]!r} stand side by side", expected="one form: 'classes', or 'names' with 'values'"
        )
    return _main_form(table["classes"])


def _main_form(entries: Any) -> _Draft:
    draft = _Draft()
    items = [_class_entry(entry, place) for place, entry in enumerate(list_of(entries, "classes"))]
    draft.names = [_name(item.get("name"), f"the class at position {place}") for place, item in enumerate(items)]
    given = [item.get("colour") for item in items]
    if any(colour is not None for colour in given):
        missing = [name for name, colour in zip(draft.names, given, strict=True) if colour is None]
        if missing:
            raise DataError(
                f"class {missing[0]!r} has no colour while others have", expected="a colour for all or for none"
            )
        draft.colours = given
    draft.values = [_raw_values(item.get("values", place), draft.names[place]) for place, item in enumerate(items)]
    return draft


def _class_entry(entry: Any, place: int) -> dict[str, Any]:
    if isinstance(entry, str):
        return {"name": entry}
    if not isinstance(entry, dict):
        raise DataError(
            f"the class at position {place} is {short(entry)}", expected="{name: …, colour: [r, g, b], value: …}"
        )
    return canonical_keys(entry, _CLASS_SPELLINGS, f"the class at position {place}")


def _parallel_form(table: Mapping[str, Any]) -> _Draft:
    if "names" not in table:
        raise DataError("it names no classes", expected=f"for example {EXAMPLE}")
    draft = _Draft(names=_names(table["names"]))
    if table.get("colours") is not None:
        draft.colours = list_of(table["colours"], "colours")
        _same_count(draft.colours, draft.names, "colours")
    values = table.get("values")
    if isinstance(values, dict):
        _read_mapping(values, draft)
    else:
        listed = list(range(len(draft.names))) if values is None else list_of(values, "values")
        _same_count(listed, draft.names, "values")
        draft.values = [_raw_values(item, name) for item, name in zip(listed, draft.names, strict=True)]
    return draft


def _names(value: Any) -> list[str]:
    """Names from a list, or from {id: name} with the ids 0, 1, 2 …"""
    if not isinstance(value, dict):
        return [_name(item, f"names[{place}]") for place, item in enumerate(list_of(value, "names"))]
    ids = sorted(integer_of(key, "an id in names") for key in value)
    gaps = [place for place, index in enumerate(ids) if place != index]
    if gaps:
        raise DataError(f"the ids in names jump: {gaps[0]} is missing", expected=f"every id from 0 to {len(ids) - 1}")
    return [_name(value[index], f"names[{index}]") for index in ids]


def _read_mapping(mapping: Mapping[Any, Any], draft: _Draft) -> None:
    """Fill the raw values from {raw: id}, {raw: name} or {name: raw}."""
    draft.values = [[] for _ in draft.names]
    for key, target in mapping.items():
        if isinstance(key, str) and key in draft.names:
            draft.values[draft.names.index(key)] += _raw_values(target, key)
            continue
        raw = _raw_value(key, "a key of values")
        index = _class_id(target, raw, draft.names)
        (draft.ignored if index is None else draft.values[index]).append(raw)
    empty = [name for name, values in zip(draft.names, draft.values, strict=True) if not values]
    if empty:
        raise DataError(f"class {empty[0]!r} has no raw value", expected="at least one raw value for each class")


def _class_id(target: Any, raw: int, names: Sequence[str]) -> int | None:
    """The id that a raw value is mapped to; None where it is to be ignored (null, "ignore" or 255)."""
    if isinstance(target, str) and target in names:
        return names.index(target)
    if target is None or target in ("ignore", IGNORE_INDEX):
        return None
    if isinstance(target, int) and not isinstance(target, bool) and 0 <= target < len(names):
        return target
    raise DataError(
        f"the raw value {raw} is mapped to {short(target)}",
        expected=f"a class name, an id from 0 to {len(names) - 1}, or ignore",
    )


def _ignored(table: Mapping[str, Any], draft: _Draft) -> list[int]:
    """Raw values to ignore, after the check that every raw value has one meaning."""
    taken = {raw: name for name, values in zip(draft.names, draft.values, strict=True) for raw in values}
    counted = Counter(raw for values in draft.values for raw in values)
    twice = [raw for raw, count in counted.items() if count > 1]
    if twice:
        owners = [name for name, values in zip(draft.names, draft.values, strict=True) if twice[0] in values]
        raise DataError(
            f"the raw value {twice[0]} stands twice (class {' and '.join(owners)})", expected="each raw value once"
        )
    ignored = draft.ignored + _explicit_ignore(table)
    both = [raw for raw in ignored if raw in taken]
    if both:
        raise DataError(
            f"the raw value {both[0]} is ignored and also class {taken[both[0]]!r}", expected="one of the two"
        )
    if "ignore" not in table and IGNORE_INDEX not in taken:
        ignored.append(IGNORE_INDEX)
    return ignored


def _explicit_ignore(table: Mapping[str, Any]) -> list[int]:
    value = table.get("ignore")
    items = value if isinstance(value, list) else [] if value is None else [value]
    return [_raw_value(item, "ignore") for item in items]


def _value_range(value: Any) -> ValueRange:
    if isinstance(value, list) and len(value) == 2 and all(map(_is_finite, value)):
        low, high = map(float, value)
        if is_value_range(low, high):
            return low, high
    raise DataError(
        f"value_range is {short(value)}",
        expected="[low, high], two finite numbers with low below high: the raw values that become black and white",
    )


def _is_finite(value: Any) -> bool:
    # A YAML true is an int to Python, and its integers may be larger than any float.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _class_table(draft: _Draft) -> ClassTable:
    try:
        return ClassTable(names=tuple(draft.names), palette=_palette(draft))
    except ValidationError as error:
        first = error.errors()[0]
        message = str(first["msg"]).removeprefix("Value error, ")
        raise DataError(f"the class table does not fit: {message}") from error


def _palette(draft: _Draft) -> tuple[Colour, ...]:
    return tuple(_colour(item, name) for item, name in zip(draft.colours or (), draft.names, strict=False))


def _colour(value: Any, name: str) -> Colour:
    if isinstance(value, list) and len(value) == 3 and all(type(item) is int and 0 <= item <= 255 for item in value):
        return (value[0], value[1], value[2])
    raise DataError(
        f"the colour of class {name!r} is {short(value)}", expected="[red, green, blue], each from 0 to 255"
    )


def _same_count(items: Sequence[Any], names: Sequence[str], what: str) -> None:
    if len(items) != len(names):
        raise DataError(f"{len(names)} classes but {len(items)} {what}", expected="one entry a class")


def _raw_values(value: Any, name: str) -> list[int]:
    items: Iterable[Any] = value if isinstance(value, list) else [value]
    values = [_raw_value(item, f"the value of class {name!r}") for item in items]
    if not values:
        raise DataError(f"class {name!r} has no raw value", expected="at least one raw value for each class")
    return values


def _raw_value(value: Any, what: str) -> int:
    raw = integer_of(value, what)
    if not 0 <= raw <= MAX_RAW_VALUE:
        raise DataError(f"{what} is {raw}", expected=f"a raw mask value from 0 to {MAX_RAW_VALUE}")
    return raw


def _name(value: Any, what: str) -> str:
    return text_of(value, f"the name of {what}" if not what.startswith("names") else what)
