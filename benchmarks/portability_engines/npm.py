"""The JavaScript packages, installed by npm from a lock file when they are first needed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "tests" / "portability"
"""Holds ``package.json`` and ``package-lock.json``; ``node_modules`` below it is not under version control."""

_TIMEOUT_S = 300
_BELIEVED_S = 600
"""A failure so recent is that of another process of the same tests: without a network each try takes its time."""


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
    _check_node(folder)
    installed, wanted = folder / "node_modules", _digest(folder)
    with (folder / ".npm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may come here at once
        stamp = installed / ".installed"
        if not stamp.is_file() or stamp.read_text() != wanted:
            _install_once(folder)
            stamp.write_text(wanted)
    return installed


def _check_node(folder: Path) -> None:
    """Raise NpmError when node is older than ``engines`` of package.json says."""
    oldest = str(json.loads((folder / "package.json").read_text())["engines"]["node"])
    found = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    if _numbers(found) < _numbers(oldest):
        raise NpmError(f"node is {found or 'of no version that it tells'} and {oldest} is needed")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def package_version(package: str, folder: Path = FOLDER) -> str:
    """The version of a package that the lock file names."""
    return str(json.loads((folder / "package-lock.json").read_text())["packages"][f"node_modules/{package}"]["version"])


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()


def _install_once(folder: Path) -> None:
    """Install, unless that failed a moment ago; called under the lock."""
    failed = folder / ".npm.failed"
    if failed.is_file() and 0 <= time.time() - failed.stat().st_mtime < _BELIEVED_S:
        raise NpmError(f"{failed.read_text().strip()} (delete {failed.name} to try again at once)")
    try:
        _install(folder)
    except NpmError as error:
        failed.write_text(f"{error}\n")
        raise
    failed.unlink(missing_ok=True)


def _install(folder: Path) -> None:
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    # Without a network npm's own patience is above a minute.
    command += ["--fetch-retries=0", "--fetch-timeout=10000"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise NpmError(f"npm ci took longer than {_TIMEOUT_S} s") from error
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.startswith("npm error")] or ["no message"]
        raise NpmError(f"npm ci failed: {lines[0]}") from error
