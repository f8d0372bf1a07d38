"""The bias card inside an artifact: of the exported network, hashed like the rest."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from test_export_run import PREPROCESS, write_run
from torch import nn

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.files import sha256_of
from dropclass_deploy.core.manifest import read_manifest
from dropclass_deploy.export import ExportOptions, export_artifact
from dropclass_deploy.models.digest import network_digest
from dropclass_deploy.training.runs.run import load_run

PAGE = "<!DOCTYPE html><title>card</title>"


def card_of(folder: Path, *networks: nn.Module) -> Path:
    folder.mkdir(exist_ok=True)
    runs = [
        {"name": f"run{place}", "network_sha256": network_digest(model), "preprocess_sha256": PREPROCESS.digest()}
        for place, model in enumerate(networks)
    ]
    (folder / "analysis.json").write_text(json.dumps({"runs": runs}))
    (folder / "index.html").write_text(PAGE)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("carded") / "run", "dropclass", "plain")


def exported(model: nn.Module, folder: Path, **options: object) -> Path:
    """The artifact of a module that nothing was trained for."""
    return export_artifact(
        model,
        folder,
        classes=("sky", "road", "tree", "cyclist"),
        preprocess=PREPROCESS,
        options=ExportOptions(**options),
    )


def test_an_artifact_carries_the_card_of_its_network(networks, tmp_path: Path) -> None:
    model = networks.Tiny()
    card = card_of(tmp_path / "card", nn.Conv2d(1, 1, 1), model)
    artifact = exported(model, tmp_path / "artifact", bias_card=card)
    page = artifact / "docs" / "bias_card.html"
    assert page.read_text() == PAGE
    assert read_manifest(artifact).files["docs/bias_card.html"] == sha256_of(page)
    assert (artifact / "docs" / "bias_card.json").read_bytes() == (card / "analysis.json").read_bytes()
    text = (artifact / "docs" / "README.md").read_text()
    assert "(bias_card.html)" in text
    assert "own preprocessing" not in text


def test_a_card_of_the_same_network_seen_otherwise_is_told_of(networks, tmp_path: Path) -> None:
    model = networks.Tiny()
    card = card_of(tmp_path / "card", model)
    artifact = exported(model, tmp_path / "artifact", bias_card=card, shape=(1, 64, 64))
    assert "bias card is of the network with its run's own preprocessing" in (artifact / "docs/README.md").read_text()


def test_a_card_of_another_network_is_refused_before_anything_is_written(run: Path, tmp_path: Path) -> None:
    loaded = load_run(run)
    # The same run's folded head is another network than the plain one.
    card = card_of(tmp_path / "card", loaded.network("folded"))
    with pytest.raises(UserError, match=r"about other networks \(run0\)"):
        export_artifact(run, tmp_path / "artifact", options=ExportOptions(bias_card=card))
    assert not (tmp_path / "artifact").exists()


@pytest.mark.parametrize("content", [None, "", "[]", '{"runs": 3}', '{"runs": [{"name": "x"}]}', "{"])
def test_what_is_no_card_is_refused(run: Path, tmp_path: Path, content: str | None) -> None:
    card = tmp_path / "card"
    card.mkdir()
    if content is not None:
        (card / "index.html").write_text(PAGE)
        (card / "analysis.json").write_text(content)
    with pytest.raises(UserError, match=r"is no bias card"):
        export_artifact(run, tmp_path / "artifact", options=ExportOptions(bias_card=card))


def test_a_link_is_no_card(run: Path, tmp_path: Path) -> None:
    card = card_of(tmp_path / "card", load_run(run).model)
    (card / "index.html").unlink()
    (card / "index.html").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match=r"is no bias card"):
        export_artifact(run, tmp_path / "artifact", options=ExportOptions(bias_card=card))


def test_a_digest_tells_networks_apart_and_nothing_else() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    same = copy.deepcopy(model).to(memory_format=torch.channels_last).double().eval()
    assert network_digest(same) == network_digest(model)
    for name in model.state_dict():
        other = copy.deepcopy(model)
        other.state_dict()[name].view(-1)[0].add_(1)
        assert network_digest(other) != network_digest(model), name
    renamed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity(), nn.BatchNorm2d(4))
    renamed[0], renamed[2] = model[0], model[1]
    assert network_digest(renamed) != network_digest(model)
