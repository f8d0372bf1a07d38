"""A folder of emitted files: whole or not there, and replaced only when it is one of ours with nothing else in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.files import atomic_folder, refuse_existing, sha256_of, write_json

MARKER = "emitted.json"
"""Says which files of a folder are emitted ones, with their sha256."""


@contextmanager
def emission(output: Path, target: str, about: dict[str, Any], *, overwrite: bool) -> Iterator[Path]:
    """Yield a folder to write to; it becomes ``output``, with its marker, when the block ends well.

    Args:
        output: the folder.
        target: what the files are for ("triton").
        about: JSON for the marker: where the files come from.
        overwrite: replace an earlier emission.

    Raises:
        UserError: when ``output`` exists and may not be replaced.
    """
    _check_replaceable(output, overwrite=overwrite)
    with atomic_folder(output, overwrite=overwrite, marker=MARKER) as folder:
        yield folder
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        files = {name: sha256_of(folder / name) for name in names}
        write_json(folder / MARKER, {"target": target, **about, "files": files})


def _check_replaceable(output: Path, *, overwrite: bool) -> None:
    refuse_existing(output, overwrite=overwrite, marker=MARKER)
    if not (output / MARKER).is_file():
        return
    own = {PurePosixPath(name) for name in (*_listed(output / MARKER), MARKER)}
    folders = {parent for name in own for parent in name.parents}
    for path in sorted(output.rglob("*")):
        name = PurePosixPath(path.relative_to(output).as_posix())
        if name not in (folders if path.is_dir() and not path.is_symlink() else own):
            raise UserError(
                f"the output {output} holds {str(name)!r}, which was not emitted, and --overwrite replaces emissions only",
                remedy="choose another folder with -o, or move it away",
            )


def _listed(marker: Path) -> list[str]:
    try:
        files = json.loads(marker.read_bytes())["files"]
        return [str(name) for name in files]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(
            f"{marker} cannot be read as the list of what was emitted",
            remedy="choose another folder with -o, or empty it yourself",
        ) from error
