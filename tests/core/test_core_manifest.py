"""The manifest: what was written is what is read, and what was changed is named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.core.manifest import MANIFEST, Manifest, check_files, hash_files, read_manifest, write_manifest
from dropclass_deploy.core.preprocess import Preprocess

FILES = {"models/model.onnx": b"weights", "labels.txt": b"road\nsky\n", "docs/README.md": b"card"}


def manifest_of(folder: Path) -> Manifest:
    return Manifest(
        name="street",
        model="lite0",
        deploy_head="plain",
        precision="fp32",
        shape=(None, 96, 128),
        opset=18,
        classes=ClassTable(names=("road", "sky"), rare=(1,)),
        preprocess=Preprocess(size=(96, 128)),
        files=hash_files(folder),
        versions={"torch": "2.14.1"},
        provenance={"seed": 0, "run": {"steps": 300}},
    )


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_manifest(folder, manifest_of(folder))
    return folder


def rewrite(artifact: Path, **changes: Any) -> None:
    content = json.loads((artifact / MANIFEST).read_text())
    (artifact / MANIFEST).write_text(json.dumps(content | changes))


def test_round_trip(artifact: Path) -> None:
    assert read_manifest(artifact) == manifest_of(artifact)


def test_an_untouched_artifact_passes(artifact: Path) -> None:
    check_files(artifact, read_manifest(artifact))


def test_a_relative_artifact_path_passes(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(artifact)
    check_files(Path(), read_manifest(Path()))


def test_hashes_are_those_of_hashlib_sorted_by_name(artifact: Path) -> None:
    expected = {name: hashlib.sha256(FILES[name]).hexdigest() for name in sorted(FILES)}
    assert list(hash_files(artifact).items()) == list(expected.items())


def test_evidence_and_the_manifest_are_not_hashed(artifact: Path) -> None:
    (artifact / "evidence" / "engines").mkdir(parents=True)
    (artifact / "evidence" / "engines" / "a.plan").touch()
    assert set(hash_files(artifact)) == set(FILES)


def test_evidence_written_later_does_not_break_the_artifact(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    (artifact / "evidence").mkdir()
    (artifact / "evidence" / "parity.json").write_text("{}")
    check_files(artifact, manifest)


def test_a_changed_byte_is_named(artifact: Path) -> None:
    (artifact / "models" / "model.onnx").write_bytes(b"weighty")
    with pytest.raises(ArtifactError, match=r"models/model\.onnx has changed \(sha256\).*export the run again"):
        check_files(artifact, read_manifest(artifact))


def test_a_missing_file_is_named(artifact: Path) -> None:
    (artifact / "labels.txt").unlink()
    with pytest.raises(ArtifactError, match=r"labels\.txt is missing"):
        check_files(artifact, read_manifest(artifact))


def test_every_problem_is_named_at_once(artifact: Path) -> None:
    (artifact / "labels.txt").unlink()
    (artifact / "docs" / "README.md").write_bytes(b"changed")
    with pytest.raises(ArtifactError, match=r"README\.md has changed \(sha256\), labels\.txt is missing"):
        check_files(artifact, read_manifest(artifact))


def test_a_file_that_became_a_folder_is_refused(artifact: Path) -> None:
    (artifact / "labels.txt").unlink()
    (artifact / "labels.txt").mkdir()
    with pytest.raises(ArtifactError, match=r"labels\.txt is no regular file"):
        check_files(artifact, read_manifest(artifact))


def test_a_link_to_the_same_bytes_is_refused(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(FILES["labels.txt"])
    (artifact / "labels.txt").unlink()
    (artifact / "labels.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=r"labels\.txt is a link"):
        check_files(artifact, read_manifest(artifact))


def test_a_linked_folder_inside_is_refused(artifact: Path, tmp_path: Path) -> None:
    (artifact / "models").rename(tmp_path / "models")
    (artifact / "models").symlink_to(tmp_path / "models")
    with pytest.raises(ArtifactError, match=r"models/model\.onnx is a link"):
        check_files(artifact, read_manifest(artifact))


def test_an_artifact_reached_through_a_link_passes(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(artifact)
    check_files(tmp_path / "latest", read_manifest(tmp_path / "latest"))


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../secret", "models/../../secret", "a\\b", "./labels.txt", "models//model.onnx", "docs/", "", "."],
)
def test_an_unsafe_path_is_refused(artifact: Path, path: str) -> None:
    rewrite(artifact, files={path: "0" * 64})
    with pytest.raises(ArtifactError, match=r"unsafe path.*plain relative path below the artifact folder"):
        read_manifest(artifact)


@pytest.mark.parametrize("name", ["x" * 5000, "labels\x00.txt", "a/" * 3000 + "b"])
def test_a_name_no_file_system_takes_is_a_problem_not_a_crash(artifact: Path, name: str) -> None:
    rewrite(artifact, files={name: "0" * 64})
    with pytest.raises(ArtifactError, match="is not what was exported"):
        check_files(artifact, read_manifest(artifact))


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_schema_version_is_named(artifact: Path, version: int) -> None:
    rewrite(artifact, schema_version=version)
    with pytest.raises(ArtifactError, match=f"has schema version {version}; expected version 1"):
        read_manifest(artifact)


def test_a_later_schema_with_other_fields_is_still_named_by_its_version(artifact: Path) -> None:
    (artifact / MANIFEST).write_text(json.dumps({"schema_version": 2, "blobs": []}))
    with pytest.raises(ArtifactError, match="has schema version 2; expected version 1"):
        read_manifest(artifact)


def test_a_truncated_manifest_is_refused(artifact: Path) -> None:
    content = (artifact / MANIFEST).read_bytes()
    (artifact / MANIFEST).write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=r"manifest\.json cannot be read as a manifest: it is no JSON"):
        read_manifest(artifact)


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"\xff\xfe\x00", b'{"schema_version": "one"}', b'{"name": "\\ud800"}', b"[" * 100_000],
)
def test_bytes_that_are_no_manifest_are_refused(artifact: Path, content: bytes) -> None:
    (artifact / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match="cannot be read as a manifest"):
        read_manifest(artifact)


def test_the_broken_field_is_named(artifact: Path) -> None:
    rewrite(artifact, opset="eighteen")
    with pytest.raises(ArtifactError, match="opset: Input should be a valid integer"):
        read_manifest(artifact)


def test_unknown_fields_are_refused(artifact: Path) -> None:
    rewrite(artifact, run_me="rm -rf")
    with pytest.raises(ArtifactError, match="run_me: Extra inputs are not permitted"):
        read_manifest(artifact)


def test_a_hostile_class_table_is_refused(artifact: Path) -> None:
    rewrite(artifact, classes={"names": ["a", "a"]})
    with pytest.raises(ArtifactError, match="class names must differ"):
        read_manifest(artifact)


def test_every_refusal_is_one_line(artifact: Path) -> None:
    rewrite(artifact, files={"../a\nb": ""})
    with pytest.raises(ArtifactError, match="unsafe path") as caught:
        read_manifest(artifact)
    assert "\n" not in str(caught.value)


def test_a_folder_without_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has no manifest\.json; expected .*dropclass export RUN -o ARTIFACT"):
        read_manifest(tmp_path)


def test_a_missing_folder_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not an artifact"):
        read_manifest(tmp_path / "nowhere")
