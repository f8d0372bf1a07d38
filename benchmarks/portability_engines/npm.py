"""The JavaScript packages, installed by npm from a lock file when they are first needed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "tests" / "portability"
"""Holds ``package.json`` and ``package-lock.json``; ``node_modules`` below it is not under version control."""

_TIMEOUT_S = 300


class NpmError(Exception):
    """npm is missing, or could not install what the lock file names."""


def node_modules(folder: Path = FOLDER) -> Path:
    """The folder with the installed packages; they are installed first when they are not what the lock file names.

    Install scripts are not run: the CPU libraries lie in the packages themselves, and only GPU libraries would be
    downloaded from elsewhere.

    Raises:
        NpmError: with the reason in one line.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise NpmError("node and npm are not installed")
    installed, wanted = folder / "node_modules", _digest(folder)
    with (folder / ".npm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may come here at once
        stamp = installed / ".installed"
        if not stamp.is_file() or stamp.read_text() != wanted:
            _install(folder)
            stamp.write_text(wanted)
    return installed


def package_version(package: str, folder: Path = FOLDER) -> str:
    """The version of a package that the lock file names."""
    return str(json.loads((folder / "package-lock.json").read_text())["packages"][f"node_modules/{package}"]["version"])


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()


def _install(folder: Path) -> None:
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise NpmError(f"npm ci took longer than {_TIMEOUT_S} s") from error
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.startswith("npm error")] or ["no message"]
        raise NpmError(f"npm ci failed: {lines[0]}") from error
