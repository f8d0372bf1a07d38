"""Facts kept from one run to the next, so that unchanged files are not read twice.

One JSON file a data place, in ``$DROPCLASS_CACHE/doctor``, else ``$XDG_CACHE_HOME/dropclass_deploy/doctor``, else
``~/.cache/dropclass_deploy/doctor``. A file counts as unchanged while its path, size, modification time and change time
are: a tool may set the modification time back, the change time is the system's own. The cache is a convenience: where it
cannot be read or written, the files are read again and nobody is told.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from dropclass_deploy.core.files import write_text
from dropclass_deploy.core.preprocess import ValueRange
from dropclass_deploy.data.doctor.facts import SCHEMA, FileFacts

Facts = TypeVar("Facts", bound=FileFacts)
Stamp = tuple[int, int, int]
"""Size in bytes, modification time and change time in ns."""


def stamp_of(path: Path) -> Stamp | None:
    """What changes when the file does; None when it cannot be asked."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


class FactsCache:
    """Facts of the files of one data place.

    Args:
        folder: of the cache; None keeps nothing.
        place: of the data; each has a file of its own.
        value_range: facts found under another range are not believed.
        believed: whether what is known counts; if not, all is found anew and kept.
    """

    def __init__(
        self, folder: Path | None, place: Path, value_range: ValueRange | None, *, believed: bool = True
    ) -> None:
        key = hashlib.sha256(str(place.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:24]
        self._path = folder / f"{key}.json" if folder is not None else None
        self._header = {"schema": SCHEMA, "value_range": list(value_range) if value_range else None}
        self._entries = self._load() if believed else {}
        self._changed = False

    def get(self, kind: type[Facts], path: Path, stamp: Stamp | None) -> Facts | None:
        """The facts of a file that has not changed since, or None."""
        entry = self._entries.get(_key(kind, path))
        if stamp is None or not isinstance(entry, dict) or entry.get("stamp") != list(stamp):
            return None
        try:
            return kind.model_validate(entry.get("facts"))
        except ValidationError:
            return None

    def put(self, path: Path, stamp: Stamp | None, facts: FileFacts) -> None:
        """Remember facts. Those of a file with a problem are not: it may be mended without a change of its own."""
        if stamp is not None and facts.problem is None:
            content = facts.model_dump(mode="json", exclude_defaults=True)
            self._entries[_key(type(facts), path)] = {"stamp": list(stamp), "facts": content}
            self._changed = True

    def save(self) -> None:
        """Write what is new; a place that cannot be written to is left alone."""
        if self._path is None or not self._changed:
            return
        try:
            write_text(self._path, json.dumps({**self._header, "files": self._entries}, ensure_ascii=True))
        except OSError:
            return
        self._changed = False

    def _load(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_bytes()) if self._path is not None else {}
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(content, dict) or any(content.get(key) != value for key, value in self._header.items()):
            return {}
        files = content.get("files")
        return files if isinstance(files, dict) else {}


def _key(kind: type[FileFacts], path: Path) -> str:
    """A path may be an image here and a mask there."""
    return f"{kind.__name__} {path.absolute()}"
