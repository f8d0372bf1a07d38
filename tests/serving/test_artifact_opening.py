from __future__ import annotations

from pathlib import Path

import pytest
from serving_builders import CLASSES, PLAIN, write_artifact

from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.core.files import write_text
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.serving.artifact import open_artifact


def test_opens_what_export_writes(tmp_path: Path) -> None:
    artifact = open_artifact(write_artifact(tmp_path / "a"))
    assert (artifact.classes, artifact.preprocess, artifact.folder) == (CLASSES, PLAIN, tmp_path / "a")
    assert artifact.model("dense").is_file()
    assert artifact.model("logits").is_file()


def test_string_path_is_taken(tmp_path: Path) -> None:
    assert open_artifact(str(write_artifact(tmp_path / "a"))).manifest.name == "a"


@pytest.mark.parametrize("name", ["models/model.onnx", "models/model.mask.onnx", "preprocess.json", "sample/mask.png"])
def test_one_changed_byte_is_found_and_named(tmp_path: Path, name: str) -> None:
    path = write_artifact(tmp_path / "a") / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match=f"{name} has changed"):
        open_artifact(tmp_path / "a")


def test_evidence_may_change(tmp_path: Path) -> None:
    write_text(write_artifact(tmp_path / "a") / "evidence/parity.json", "{}")
    assert open_artifact(tmp_path / "a").evidence == tmp_path / "a/evidence"


def test_run_folder_is_told_apart(tmp_path: Path) -> None:
    write_text(tmp_path / "recipe.yaml", "data: synthetic")
    with pytest.raises(ArtifactError, match=r"is a training run, not an artifact.*dropclass export"):
        open_artifact(tmp_path)


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_random_folder_is_refused(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ArtifactError, match=r"not an artifact: it has no manifest\.json"):
        open_artifact(tmp_path / folder)


def test_unlisted_network_is_refused(tmp_path: Path) -> None:
    def drop(folder: Path) -> None:
        (folder / "models/model.onnx").unlink()

    with pytest.raises(ArtifactError, match=r"does not list models/model\.onnx"):
        open_artifact(write_artifact(tmp_path / "a", edit=drop))


def test_preprocessing_that_disagrees_with_the_manifest(tmp_path: Path) -> None:
    def other(folder: Path) -> None:
        write_text(folder / "preprocess.json", Preprocess().model_dump_json())

    with pytest.raises(ArtifactError, match="name different preprocessing"):
        open_artifact(write_artifact(tmp_path / "a", edit=other))


def test_preprocessing_that_is_no_json(tmp_path: Path) -> None:
    def break_it(folder: Path) -> None:
        write_text(folder / "preprocess.json", "{")

    with pytest.raises(ArtifactError, match=r"preprocess\.json cannot be read"):
        open_artifact(write_artifact(tmp_path / "a", edit=break_it))
