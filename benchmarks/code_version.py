"""Which code a stored figure came from."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import dropclass_deploy


def code() -> dict[str, Any]:
    """The package's version and commit, and whether its files differ from that commit; null outside a checkout."""
    package = Path(dropclass_deploy.__file__).parent
    top = _git(package, "rev-parse", "--show-toplevel")
    # An installed package may lie below somebody else's repository.
    if top is None or Path(top).resolve() != package.parent.resolve():
        return {"version": dropclass_deploy.__version__, "commit": None, "dirty": None}
    changed = _git(package, "status", "--porcelain", "--", ".")
    return {
        "version": dropclass_deploy.__version__,
        "commit": _git(package, "rev-parse", "HEAD"),
        "dirty": None if changed is None else bool(changed),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, or None when it cannot tell."""
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
