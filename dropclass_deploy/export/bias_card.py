"""The bias card that an artifact carries: of this very network, or it is refused."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.files import write_bytes
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.regular_files import MIB, RefusedFileError, read_json, read_regular
from dropclass_deploy.models.digest import network_digest

PAGE, FIGURES = "docs/bias_card.html", "docs/bias_card.json"
_SOURCES = {PAGE: "index.html", FIGURES: "analysis.json"}
_LIMIT = 64 * MIB


def check_bias_card(folder: Path | None, network: nn.Module, preprocess: Preprocess) -> str:
    """Refuse a folder that holds no card, or the card of other networks.

    Returns:
        A sentence when the network was analysed with another preprocessing than the artifact's, else "".

    Raises:
        UserError: saying which.
    """
    if folder is None:
        return ""
    try:
        read_regular(folder / _SOURCES[PAGE], _LIMIT)
        runs = json.loads(read_json(folder / _SOURCES[FIGURES], _LIMIT))["runs"]
        known = {str(run["network_sha256"]): (str(run["name"]), str(run["preprocess_sha256"])) for run in runs}
    except (OSError, RefusedFileError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder} is no bias card", expected="a folder that 'dropclass analyze' wrote, with its two files"
        ) from error
    digest = network_digest(network)
    if digest not in known:
        raise UserError(
            f"the bias card {folder} is about other networks ({', '.join(name for name, _ in known.values())})",
            expected="a card of the network that is exported: same run, weights and deploy head",
            remedy="make one with dropclass analyze RUN --data FORMAT:PATH -o CARD",
        )
    if known[digest][1] == preprocess.digest():
        return ""
    return "The bias card is of the network with its run's own preprocessing, not with the size or window of this artifact."


def write_bias_card(artifact: Path, folder: Path | None) -> None:
    """Copy page and figures into an artifact's ``docs/``."""
    if folder is None:
        return
    for target, source in _SOURCES.items():
        write_bytes(artifact / target, read_regular(folder / source, _LIMIT))
