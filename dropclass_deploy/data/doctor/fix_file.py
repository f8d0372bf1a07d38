"""The proposed class table as a file: what the user's own file says besides classes is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.files import write_text
from dropclass_deploy.data.doctor.evidence import Evidence
from dropclass_deploy.data.doctor.findings import share
from dropclass_deploy.data.doctor.fix_map import Proposal, ProposedClass, propose
from dropclass_deploy.data.file_pairs import located
from dropclass_deploy.data.folder import CLASSES_FILES
from dropclass_deploy.data.layout import Layout
from dropclass_deploy.data.yaml_file import read_yaml_mapping

_KEPT = ("splits", "value_range")


def write_fix_map(evidence: Evidence, folder: Path) -> Path:
    """Write the proposal to ``folder/classes.yaml``, or beside it under the next free number.

    A file that is there stays: it may be the user's own, or a proposal with names that a person filled in.

    Returns:
        The file.
    """
    text = fix_map_text(evidence)
    number, path = 1, folder / CLASSES_FILES[0]
    while path.exists() and path.read_bytes() != text.encode():
        number += 1
        path = folder / f"classes-{number}.yaml"
    write_text(path, text)
    return path


def fix_map_text(evidence: Evidence) -> str:
    """YAML text of the proposed class table."""
    layout, proposal = evidence.layout, propose(evidence)
    total = sum(proposal.pixels.values())
    lines = [
        f"# Proposed by dropclass check-data for {layout.spec}: check names and values.",
        *(f"# {remark}" for remark in [*proposal.remarks, *_place_remark(layout)]),
        *_root(layout),
        "classes:",
        *(f"  - {_entry(item)}  # {_share(proposal, item.values, total)}" for item in proposal.classes),
        f"ignore: {proposal.ignored}  # {_share(proposal, proposal.ignored, total)}",
        *_kept(layout),
    ]
    return "\n".join(lines) + "\n"


def _entry(item: ProposedClass) -> str:
    colour = list(item.colour or (0, 0, 0))
    values = f"value: {item.values[0]}" if len(item.values) == 1 else f"values: {item.values}"
    return f"{{name: {json.dumps(item.name, ensure_ascii=False)}, colour: {colour}, {values}}}"


def _share(proposal: Proposal, values: list[int], total: int) -> str:
    return f"{share(sum(proposal.pixels.get(value, 0) for value in values), total)} of the pixels"


def _is_folder(layout: Layout) -> bool:
    return layout.spec.startswith("folder:")


def _root(layout: Layout) -> list[str]:
    return [f"root: {json.dumps(str(layout.place.absolute()), ensure_ascii=False)}"] if _is_folder(layout) else []


def _place_remark(layout: Layout) -> list[str]:
    if _is_folder(layout):
        return ["Use it as folder:THIS_FILE, or copy it into the data folder as classes.yaml."]
    return ["To use it, lay the files out as images/ and masks/ with this file beside them, and name them folder:PATH."]


def _kept(layout: Layout) -> list[str]:
    """Lines of the user's present file that are no classes."""
    present = _present(layout)
    return [f"{key}: {_flow(present[key])}" for key in _KEPT if present.get(key) is not None]


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1_000_000).strip()


def _present(layout: Layout) -> dict[Any, Any]:
    """What the class file of a ``folder:`` says now; nothing where there is none."""
    path = located(layout.spec.partition(":")[2]) if _is_folder(layout) else None
    if path is not None and path.is_dir():
        path = next((path / name for name in CLASSES_FILES if (path / name).is_file()), None)
    try:
        return read_yaml_mapping(path) if path is not None else {}
    except DataError:
        return {}
