"""Which plans may be run: those that this user built here, or took in by name.

A plan is code, and whoever forges one forges the sidecar beside it. What says "built here" therefore lies outside of every
artifact: each build leaves a mark in the user's own cache folder, an empty file named by the sha256 of the sidecar's
content, which in turn names the sha256 of the plan and of the network.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from dropclass_deploy.core.cache import cache_folder
from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.serving.runtimes.tensorrt_native.engine_record import EngineRecord

TRUST = "build it here: dropclass engine ARTIFACT; or, knowing who built it: dropclass engine ARTIFACT --trust PLAN"


def remember(record: EngineRecord) -> bool:
    """Mark a plan as one of this user's; False where there is no cache folder that only this user can write to."""
    folder = cache_folder("engines")
    if folder is None:
        return False
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(folder / _digest(record), os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError:
        return False
    return was_built_here(record)


def was_built_here(record: EngineRecord) -> bool:
    """Whether the plan of this sidecar carries this user's mark."""
    folder = cache_folder("engines")
    if folder is None:
        return False
    mark = folder / _digest(record)
    try:
        return _is_own(folder.stat()) and _is_own(status := mark.lstat()) and stat.S_ISREG(status.st_mode)
    except OSError:
        return False


def check_built_here(plan: Path, record: EngineRecord) -> None:
    """Raise ArtifactError unless ``was_built_here``."""
    if not was_built_here(record):
        raise ArtifactError(
            f"{plan.name} was not built by you on this machine",
            expected="a plan of your own, because a plan is code",
            remedy=TRUST,
        )


def _digest(record: EngineRecord) -> str:
    return hashlib.sha256(record.model_dump_json().encode()).hexdigest()


def _is_own(status: os.stat_result) -> bool:
    """Nobody else could have put it there."""
    others = stat.S_IWGRP | stat.S_IWOTH
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & others)
