"""What --overwrite may take away, and what never."""

from pathlib import Path

import pytest

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.files import write_text
from dropclass_deploy.core.manifest import Manifest, hash_files, write_manifest
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.export import ExportOptions, export_artifact
from dropclass_deploy.export.replacement import check_replaceable

EXTENSION = '{"manifest_version": 3, "name": "My extension", "version": "1.0", "permissions": ["tabs"]}'


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A folder with a manifest of ours and two of the files it lists."""
    folder = tmp_path / "artifact"
    for name in ("models/model.onnx", "labels.txt"):
        write_text(folder / name, name)
    manifest = Manifest(
        name="artifact",
        model="tiny",
        deploy_head="plain",
        precision="fp32",
        shape=(None, None, None),
        opset=18,
        classes=ClassTable(names=("a", "b")),
        preprocess=Preprocess(),
        files=hash_files(folder),
        versions={},
        provenance={},
    )
    write_manifest(folder, manifest)
    return folder


def test_our_own_files_may_go_even_when_changed_or_missing(artifact: Path) -> None:
    write_text(artifact / "labels.txt", "changed")
    (artifact / "models/model.onnx").unlink()
    write_text(artifact / "evidence/engines/a.plan.json", "{}")
    check_replaceable(artifact, overwrite=True)


@pytest.mark.parametrize(
    "name", ["thesis.txt", "models/weights-of-my-own.pth", "labels.txt.bak", ".git/HEAD", "notes/evidence/x"]
)
def test_the_first_foreign_file_is_named(artifact: Path, name: str) -> None:
    write_text(artifact / name, "years of work")
    first = name.split("/")[0] if name[0] in ".n" else name
    with pytest.raises(UserError, match=rf"holds '{first}', which no export wrote, and --overwrite replaces artifacts"):
        check_replaceable(artifact, overwrite=True)
    assert (artifact / name).read_text() == "years of work"


def test_a_folder_in_the_place_of_a_file_is_foreign(artifact: Path) -> None:
    (artifact / "labels.txt").unlink()
    (artifact / "labels.txt").mkdir()
    with pytest.raises(UserError, match=r"holds 'labels\.txt'"):
        check_replaceable(artifact, overwrite=True)


def test_a_link_is_foreign_and_what_it_points_to_is_not_walked(artifact: Path, tmp_path: Path) -> None:
    write_text(tmp_path / "elsewhere/file", "x")
    (artifact / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="holds 'link'"):
        check_replaceable(artifact, overwrite=True)


@pytest.mark.parametrize("content", [EXTENSION, "", "[1]", '{"schema_version": 99}', "\x00\xff"])
def test_a_manifest_of_something_else_is_no_artifact(networks, tmp_path: Path, content: str) -> None:
    folder = tmp_path / "extension"
    write_text(folder / "manifest.json", content)
    write_text(folder / "background.js", "let work")
    with pytest.raises(UserError, match=r"extension is no artifact of ours \(.*\), and --overwrite replaces artifacts"):
        export_artifact(
            networks.Tiny(),
            folder,
            classes=ClassTable(names=("a", "b", "c", "d")),
            preprocess=Preprocess(),
            options=ExportOptions(overwrite=True),
        )
    assert (folder / "background.js").read_text() == "let work"


def test_a_file_that_comes_during_the_export_is_kept(networks, artifact: Path) -> None:
    class Slow(networks.Tiny):
        """Somebody saves a file while the network is being traced."""

        def forward(self, images):
            (artifact / "late.txt").write_text("just saved")
            return super().forward(images)

    with pytest.raises(UserError, match=r"holds 'late\.txt'"):
        export_artifact(
            Slow(),
            artifact,
            classes=ClassTable(names=("a", "b", "c", "d")),
            preprocess=Preprocess(),
            options=ExportOptions(shape=(1, 24, 32), overwrite=True),
        )
    assert (artifact / "late.txt").read_text() == "just saved"
    assert (artifact / "labels.txt").read_text() == "labels.txt"
    assert [path.name for path in artifact.parent.iterdir()] == ["artifact"]


def test_without_overwrite_nothing_is_replaced(artifact: Path) -> None:
    with pytest.raises(UserError, match=r"exists already; .*--overwrite"):
        check_replaceable(artifact, overwrite=False)


@pytest.mark.parametrize("overwrite", [True, False])
def test_nothing_and_an_empty_folder_are_fine(tmp_path: Path, overwrite: bool) -> None:
    check_replaceable(tmp_path, overwrite=overwrite)
    check_replaceable(tmp_path / "missing", overwrite=overwrite)
