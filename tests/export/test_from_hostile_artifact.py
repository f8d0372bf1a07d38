"""Rebuilding a network from an artifact whose provenance was forged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.core.manifest import MANIFEST
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.export import export_artifact
from dropclass_deploy.export.from_artifact import network_from_artifact


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, networks: Any) -> Path:
    folder = tmp_path_factory.mktemp("forged") / "artifact"
    table = ClassTable(names=("a", "b", "c", "d"))
    return export_artifact(networks.Tiny(), folder, classes=table, preprocess=Preprocess(), name="unet")


@pytest.mark.parametrize(
    "options", ["x", [1], {"weights": "/etc/passwd"}, {"num_classes": 4}, {"width": "a"}, {"depth": 10**9}, {"": 1}]
)
def test_options_that_fit_no_network_are_one_error(artifact: Path, tmp_path: Path, options: Any) -> None:
    folder = Path(shutil.copytree(artifact, tmp_path / "artifact"))
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(content | {"provenance": {"options": options}}))
    with pytest.raises(ArtifactError, match=r"the network of .* cannot be rebuilt: .*; export the run again"):
        network_from_artifact(folder)
