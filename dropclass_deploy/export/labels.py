"""The class table as other stacks read it.

``labels.txt``: one name a line, the line number is the id. ``semseg_color_map.csv``: ``id,name,r,g,b`` a row, the layout that
Autoware's ``autoware_tensorrt_yolox`` reads. ``label_map.json``: the same with rare flags and optional SNOMED CT codes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.files import write_json, write_text

LABELS = "labels.txt"
COLOUR_MAP = "semseg_color_map.csv"
LABEL_MAP = "label_map.json"

_PUNCTUATION = re.compile(r"[,#\"]")


def write_labels(folder: Path, classes: ClassTable, codes: Mapping[str, str] | None = None) -> None:
    """Write the three files.

    Args:
        folder: of the artifact.
        classes: the table.
        codes: class name → SNOMED CT code, for medical classes.

    Raises:
        UserError: when a name cannot stand on one line, or a code is given for a class that does not exist.
    """
    broken = [name for name in classes.names if len(name.splitlines()) != 1]
    if broken:
        raise UserError(f"the class name {broken[0]!r} has a line break", expected="names of one line")
    unknown = sorted(set(codes or {}) - set(classes.names))
    if unknown:
        raise UserError(f"a SNOMED code is given for {unknown[0]!r}", expected=f"one of {', '.join(classes.names)}")
    write_text(folder / LABELS, "".join(f"{name}\n" for name in classes.names))
    write_text(folder / COLOUR_MAP, colour_map_csv(classes))
    write_json(folder / LABEL_MAP, label_map(classes, codes or {}))


def colour_map_csv(classes: ClassTable) -> str:
    """The rows ``id,name,r,g,b`` under that header, in id order.

    Its readers split at every comma, take the rest after a "#" for a comment and know no quotes: in this file these
    characters of a name are left out (``labels.txt`` and ``label_map.json`` have the names as they are).
    """
    rows = ["id,name,r,g,b"]
    for index, (name, colour) in enumerate(zip(classes.names, classes.palette, strict=True)):
        plain = " ".join(_PUNCTUATION.sub(" ", name).split())
        rows.append(",".join(map(str, (index, plain or f"class {index}", *colour))))
    return "\n".join(rows) + "\n"


def label_map(classes: ClassTable, codes: Mapping[str, str]) -> dict[str, Any]:
    """``label_map.json`` as a dict: the classes in id order and the value that counts nowhere."""
    rows = []
    for index, (name, colour) in enumerate(zip(classes.names, classes.palette, strict=True)):
        row: dict[str, Any] = {"id": index, "name": name, "colour": list(colour), "rare": classes.is_rare(index)}
        if name in codes:
            row["snomed_ct"] = codes[name]
        rows.append(row)
    return {"ignore_index": classes.ignore_index, "classes": rows}
