"""Markdown files with tables between markers: ``<!-- FAMILY:NAME -->`` … ``<!-- FAMILY:end -->``, such as evidence:NAME."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from dropclass_deploy.core.errors import UserError

FAMILY = "evidence"
_END = "end"


def filled(text: str, where: str, content: Callable[[str], str], family: str = FAMILY) -> str:
    """The text with what is between each pair of markers replaced; doing it again changes nothing.

    Args:
        text: Markdown; a marker stands on a line of its own.
        where: for messages.
        content: of a marker's name.
        family: of the markers; those of others are left alone.

    Raises:
        UserError: for a marker without its end, an end without a marker, or a name that ``content`` refuses.
    """
    parts, position, open_name = [], 0, None
    for marker in re.finditer(rf"^<!-- {re.escape(family)}:(\S+) -->[ \t]*$", text, re.MULTILINE):
        name = marker[1]
        if (name == _END) == (open_name is None):
            raise _unpaired(where, name, open_name, family)
        if open_name is None:
            parts.append(text[position : marker.end()])
            open_name = name
        else:
            # Empty lines: not every renderer ends a table at a comment.
            parts.append(f"\n\n{content(open_name)}\n\n")
            open_name = None
        position = marker.end() if open_name is not None else marker.start()
    if open_name is not None:
        raise _unpaired(where, _END, open_name, family, missing=True)
    return "".join([*parts, text[position:]])


def read(path: Path) -> str:
    """A document's text.

    Raises:
        UserError: when it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}", expected="a Markdown file with markers") from error


def _unpaired(where: str, name: str, open_name: str | None, family: str, *, missing: bool = False) -> UserError:
    if open_name is None:
        return UserError(f"{where}: {family}:end without a marker before it", remedy="remove it")
    found = "the file ends" if missing else f"{family}:{name} begins"
    return UserError(f"{where}: {found} before {family}:{open_name} ends", remedy=f"put <!-- {family}:end --> after it")
