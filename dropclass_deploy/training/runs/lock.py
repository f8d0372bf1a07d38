"""One training a folder at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from dropclass_deploy.core.errors import RunError
from dropclass_deploy.training.runs.run import LOCK


class FolderLock:
    """Context manager whose ``take`` makes a run folder this process's own until the end of the block.

    The operating system holds the lock on the file ``.lock`` and frees it when the process ends in any way; a kill leaves the
    file, which then means nothing.
    """

    def __init__(self) -> None:
        self._held: tuple[Path, int] | None = None

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held is not None:
            path, handle = self._held
            path.unlink(missing_ok=True)
            os.close(handle)
            self._held = None

    def take(self, folder: Path) -> None:
        """Lock an existing folder; a second call does nothing.

        Raises:
            RunError: when another training works in it.
        """
        path = (folder / LOCK).resolve()
        while self._held is None:
            handle = _locked(path)
            if _is_same_file(path, handle):
                self._held = (path, handle)
            else:  # its last holder removed it between our opening and our locking it
                os.close(handle)


def _locked(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # A file system without locks raises others: the training itself needs none.
        if isinstance(error, BlockingIOError):
            os.close(handle)
            raise RunError(
                f"another training is at work in {path.parent}",
                remedy="wait for its end, or choose another folder with -o",
            ) from error
    return handle


def _is_same_file(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
