"""Which network runs where, told by the commands that may take what ``dropclass auto`` stored."""

from __future__ import annotations

from typing import Any

from dropclass_deploy.serving import Segmenter


def what_runs(segmenter: Segmenter) -> dict[str, Any]:
    """For ``--json``: the runtime's name, what really runs there, and whether a stored choice said so."""
    configuration = segmenter.configuration.model_dump()
    found = {"provider": segmenter.provider, "precision": segmenter.precision, "stored_choice": segmenter.stored_choice}
    return configuration | found


def told(segmenter: Segmenter) -> str:
    """The same as one line."""
    configuration = segmenter.configuration.model_copy(update={"precision": segmenter.precision})
    chosen = ", as 'dropclass auto' chose" if segmenter.stored_choice else ""
    return f"{configuration} ({segmenter.provider}){chosen}"
