"""Writing is whole or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.files import (
    atomic_folder,
    atomic_path,
    is_scrap,
    recover,
    refuse_existing,
    sha256_of,
    write_bytes,
    write_json,
    write_text,
)


class BrokenOffError(Exception):
    """Stands for whatever may go wrong in the middle of writing."""


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def break_off_writing_file(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise BrokenOffError("broken off")


def break_off_writing_folder(path: Path, *, overwrite: bool = False) -> None:
    with atomic_folder(path, overwrite=overwrite) as folder:
        (folder / "half").write_text("half")
        raise BrokenOffError("broken off")


def test_sha256_of_equals_hashlib(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_sha256_of_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert sha256_of(tmp_path / "file") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_write_bytes_makes_missing_folders(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b" / "file", b"\x00\xff")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"\x00\xff"


def test_write_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "Straße ⌊C/2⌋")
    assert (tmp_path / "file").read_bytes() == "Straße ⌊C/2⌋".encode()


def test_write_replaces_the_whole_file(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "long content")
    write_text(tmp_path / "file", "short")
    assert (tmp_path / "file").read_text() == "short"
    assert names_in(tmp_path) == ["file"]


def test_a_written_file_can_be_read_by_others(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "x")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_failure_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with pytest.raises(BrokenOffError, match="broken off"):
        break_off_writing_file(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def test_a_failure_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(BrokenOffError, match="broken off"):
        break_off_writing_file(tmp_path / "file")
    assert names_in(tmp_path) == []


def test_the_old_file_stands_until_the_block_has_ended(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "file").read_text() == "old"
    assert (tmp_path / "file").read_text() == "new"


def test_json_round_trip_keeps_letters(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"näme": [1, None, 0.5]})
    assert "näme" in (tmp_path / "file").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "file").read_text(encoding="utf-8")) == {"näme": [1, None, 0.5]}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_json_has_not(tmp_path: Path, value: float) -> None:
    write_json(tmp_path / "file", {"old": True})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file", {"figure": value})
    assert json.loads((tmp_path / "file").read_text()) == {"old": True}


def test_refuse_existing_lets_new_and_empty_outputs_pass(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "new", overwrite=False)
    refuse_existing(tmp_path, overwrite=False)


def test_refuse_existing_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="exists already; choose another with -o, or pass --overwrite"):
        refuse_existing(tmp_path, overwrite=False)


def test_refuse_existing_lets_a_folder_be_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refuse_existing(tmp_path, overwrite=True)
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_never_overwritten_by_a_folder(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(UserError, match=r"exists already|is a file; expected a folder"):
        refuse_existing(tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "out").read_text() == "precious"


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "deep" / "out") as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "deep" / "out").exists()
    assert names_in(tmp_path / "deep") == ["out"]
    assert names_in(tmp_path / "deep" / "out") == ["a"]


def test_a_written_folder_can_be_entered_by_others(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "a").touch()
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


def test_an_empty_folder_is_filled_without_asking(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "a").touch()
    assert names_in(tmp_path) == ["out"]
    assert names_in(tmp_path / "out") == ["a"]


def test_an_existing_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(UserError, match="exists already"), atomic_folder(tmp_path / "out"):
        pytest.fail("the block must not run")
    assert names_in(tmp_path) == ["out"]


def test_overwriting_leaves_nothing_of_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with atomic_folder(tmp_path / "out", overwrite=True) as folder:
        (folder / "new").touch()
        assert names_in(tmp_path / "out") == ["old"]
    assert names_in(tmp_path) == ["out"]
    assert names_in(tmp_path / "out") == ["new"]


def test_a_failure_keeps_the_old_folder_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(BrokenOffError, match="broken off"):
        break_off_writing_folder(tmp_path / "out", overwrite=True)
    assert names_in(tmp_path) == ["out"]
    assert (tmp_path / "out" / "old").read_text() == "old"


def test_a_failure_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BrokenOffError, match="broken off"):
        break_off_writing_folder(tmp_path / "out")
    assert names_in(tmp_path) == []


def test_a_linked_output_folder_is_written_where_the_link_points(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "old").touch()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with atomic_folder(tmp_path / "out", overwrite=True) as folder:
        (folder / "new").touch()
    assert (tmp_path / "out").is_symlink()
    assert names_in(tmp_path / "disk") == ["new"]


def test_the_current_folder_can_be_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with atomic_folder(Path()) as folder:
        (folder / "new").touch()
    assert names_in(tmp_path) == ["here"]
    assert names_in(tmp_path / "here") == ["new"]


def test_what_an_interrupted_replacement_moved_aside_goes_back(tmp_path: Path) -> None:
    aside = tmp_path / ".model.one.8f3k.old"
    aside.mkdir()
    (aside / "weights").write_text("good")
    recover(tmp_path)
    assert names_in(tmp_path) == ["model.one"]
    assert (tmp_path / "model.one" / "weights").read_text() == "good"


def test_what_was_replaced_or_never_finished_is_removed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / ".model.8f3k.old").mkdir()
    (tmp_path / ".model.8f3k.old" / "weights").write_text("old")
    (tmp_path / ".model.x9.tmp").mkdir()
    (tmp_path / ".other.x9.old").mkdir()  # made, and nothing moved into it yet
    (tmp_path / ".notes.txt.q.tmp").write_text("half")
    (tmp_path / ".hidden").write_text("a user's")
    (tmp_path / "a.tmp").write_text("a user's")
    assert [name for name in names_in(tmp_path) if not is_scrap(tmp_path / name)] == [".hidden", "a.tmp", "model"]
    recover(tmp_path)
    assert names_in(tmp_path) == [".hidden", "a.tmp", "model"]
    recover(tmp_path / "missing")
