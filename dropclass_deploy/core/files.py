"""Writing that is whole or not at all, and hashes of what was written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dropclass_deploy.core.errors import UserError


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes as lower-case hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path``; it replaces ``path`` when the block ends well, else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        # mkstemp makes private files; an artifact is read by other users (a server, a container).
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text to ``path`` atomically."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; NaN is refused (callers write null)."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def refuse_existing(path: Path, *, overwrite: bool, marker: str | None = None) -> None:
    """Refuse an output folder that must not be replaced.

    Args:
        path: of the output; one that is missing or an empty folder is fine.
        overwrite: whether the caller may replace what is there.
        marker: file that says "this folder is one of ours"; a folder with other things in it is never replaced.

    Raises:
        UserError: saying what is there.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise UserError(
            f"the output {path} exists already",
            remedy="choose another with -o, or pass --overwrite to replace it",
        )
    if not path.is_dir():
        raise UserError(f"the output {path} is a file", expected="a folder", remedy="choose another with -o")
    if marker is not None and not (path / marker).is_file():
        raise UserError(
            f"the output {path} holds other things (it has no {marker}), and --overwrite replaces our own folders only",
            remedy="choose another folder with -o, or empty it yourself",
        )


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False, marker: str | None = None) -> Iterator[Path]:
    """Yield a new empty folder beside ``path`` that becomes ``path`` when the block ends well.

    A reader sees the old folder, no folder, or the whole new one; when the block fails, what was at ``path`` stays.
    """
    # Where the folder really stands: a link (to a larger disk, say) stays a link, and "." has a name and a parent.
    path = path.resolve()
    refuse_existing(path, overwrite=overwrite, marker=marker)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        yield temporary
        temporary.chmod(0o755)
        _swap(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(new: Path, path: Path) -> None:
    """Move ``new`` to ``path``; a folder that was there is removed only after the new one stands."""
    if not path.exists():
        new.replace(path)
        _sync_folder(path.parent)
        return
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
    path.replace(old)
    try:
        new.replace(path)
    except OSError:
        old.replace(path)
        raise
    _sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk: a rename that a power cut undoes was none."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot do it, and then nothing can
            os.fsync(handle)
    finally:
        os.close(handle)


_SCRAP = re.compile(r"\.(?P<name>.+)\.[^.]+\.(?P<kind>tmp|old)")


def is_scrap(path: Path) -> bool:
    """Whether a file or folder is what an interrupted write left, by its name."""
    return _SCRAP.fullmatch(path.name) is not None


def recover(folder: Path) -> None:
    """Remove what killed writes left in ``folder``; a folder that was moved aside and not replaced goes back to its place.

    Only for a folder in which nobody is writing.
    """
    for scrap in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = _SCRAP.fullmatch(scrap.name)
        if match is None:
            continue
        place = folder / match["name"]
        if match["kind"] == "old" and scrap.is_dir() and any(scrap.iterdir()) and not place.exists():
            scrap.replace(place)
        elif scrap.is_dir() and not scrap.is_symlink():
            shutil.rmtree(scrap, ignore_errors=True)
        else:
            scrap.unlink(missing_ok=True)
