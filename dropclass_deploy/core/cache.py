"""Where what was measured once is kept for the next time."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path | None:
    """``$DROPCLASS_CACHE/name``, else ``$XDG_CACHE_HOME/dropclass_deploy/name``, else below ``~/.cache``.

    None for a user without a home.
    """
    if own := os.environ.get("DROPCLASS_CACHE"):
        return Path(own) / name
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return base / "dropclass_deploy" / name
