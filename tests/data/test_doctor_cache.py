"""The second look at unchanged files opens none of them; a cache that cannot be used is no matter."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hostile_folders import COUNT, WIDTH, sound_mask, write_sound_folder
from PIL import Image

from dropclass_deploy.core.cache import cache_folder
from dropclass_deploy.data.doctor import Report, examine
from dropclass_deploy.data.doctor.cache import FactsCache, stamp_of
from dropclass_deploy.data.doctor.facts import MaskFacts
from dropclass_deploy.data.registry import survey


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DROPCLASS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "doctor"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sound_folder(tmp_path / "data")


def examined(root: Path, **options: bool) -> Report:
    layout = survey(f"folder:{root}")
    assert layout is not None
    return examine(layout, **options)


_listeners: list[set[Path]] = []


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _listeners and isinstance(arguments[0], str | bytes | os.PathLike):
        for heard in _listeners:
            heard.add(Path(os.fsdecode(arguments[0])))


sys.addaudithook(_hear)  # Python has no way to take a hook out again


@contextmanager
def opened(root: Path) -> Iterator[set[Path]]:
    """The image and mask files that are opened inside the block, by name below ``root``; complete after it."""
    heard: set[Path] = set()
    names: set[Path] = set()
    _listeners.append(heard)
    try:
        yield names
    finally:
        _listeners.remove(heard)
        names |= {path.relative_to(root) for path in heard if path.parent.parent == root}


def every_file(root: Path) -> set[Path]:
    return {path.relative_to(root) for path in root.glob("*/*.png")}


def test_unchanged_files_are_not_opened_again(root: Path, cache: Path) -> None:
    with opened(root) as names:
        first = examined(root)
    assert names == every_file(root)
    assert len(names) == 2 * COUNT
    with opened(root) as names:
        second = examined(root)
    assert names == set()
    assert first.to_json() == second.to_json()
    assert second.findings == ()


def test_when_the_cache_is_not_believed_every_file_is_opened_and_kept(root: Path, cache: Path) -> None:
    examined(root)
    with opened(root) as names:
        examined(root, cached=False)
    assert names == every_file(root)
    with opened(root) as names:
        examined(root)
    assert names == set()


def test_a_changed_file_is_read_again_and_only_that_one(root: Path, cache: Path) -> None:
    examined(root)
    mask = sound_mask(3)
    mask[0, 0] = 99
    Image.fromarray(mask).save(root / "masks" / "03.png")
    with opened(root) as names:
        report = examined(root)
    assert names == {Path("masks/03.png")}
    assert [(finding.kind, finding.files) for finding in report.findings] == [
        ("values-unknown", (root / "masks" / "03.png",))
    ]


def test_an_edit_that_keeps_size_and_time_is_noticed(root: Path, cache: Path) -> None:
    path = root / "masks" / "03.bmp"
    (root / "masks" / "03.png").unlink()
    Image.fromarray(sound_mask(3)).save(path)
    assert examined(root).findings == ()
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-WIDTH] = 99
    path.write_bytes(bytes(content))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert [finding.kind for finding in examined(root).findings] == ["values-unknown"]


def test_a_touched_file_is_read_again(root: Path, cache: Path) -> None:
    examined(root)
    os.utime(root / "images" / "00.png")
    with opened(root) as names:
        examined(root)
    assert names == {Path("images/00.png")}


def test_a_damaged_file_is_looked_at_again(root: Path, cache: Path) -> None:
    path = root / "images" / "00.png"
    whole, stamp = path.read_bytes(), path.stat().st_mtime_ns
    path.write_bytes(b"x" * len(whole))
    os.utime(path, ns=(stamp, stamp))
    assert examined(root).errors != []
    path.write_bytes(whole)  # mended under the same size and time, as a copy that keeps times does
    os.utime(path, ns=(stamp, stamp))
    assert examined(root).errors == []


def test_another_class_table_needs_no_reading(root: Path, cache: Path) -> None:
    examined(root)
    table = (root / "classes.yaml").read_text().replace("value: 3", "value: 4")
    (root / "classes.yaml").write_text(table)
    with opened(root) as names:
        report = examined(root)
    assert names == set()
    assert [finding.kind for finding in report.findings] == ["values-unknown"]


def test_another_value_range_reads_again(root: Path, cache: Path) -> None:
    examined(root)
    with (root / "classes.yaml").open("a") as stream:
        stream.write("value_range: [0, 4095]\n")
    with opened(root) as names:
        examined(root)
    assert names == every_file(root)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"schema": 1}', '{"schema": 0, "value_range": null, "files": {}}']
)
def test_a_damaged_cache_is_ignored(root: Path, cache: Path, content: str) -> None:
    examined(root)
    (file,) = cache.iterdir()
    file.write_text(content)
    assert examined(root).findings == ()
    assert len(json.loads(file.read_text())["files"]) == 2 * COUNT


def test_damaged_entries_are_ignored(root: Path, cache: Path) -> None:
    examined(root)
    (file,) = cache.iterdir()
    stored = json.loads(file.read_text())
    harm = [None, 3, {}, {"stamp": [1, 2]}, {"facts": {}}]
    for place, key in enumerate(sorted(stored["files"])):
        good = stored["files"][key]
        stored["files"][key] = {**good, "facts": {"height": "tall"}} if place % 2 else harm[place // 2 % len(harm)]
    file.write_text(json.dumps(stored))
    assert examined(root).findings == ()


def test_a_cache_that_cannot_be_written_is_no_matter(root: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DROPCLASS_CACHE", str(tmp_path / "file"))  # a folder cannot be made below a file
    assert examined(root).findings == ()


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DROPCLASS_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder("doctor") == tmp_path / ".cache" / "dropclass_deploy" / "doctor"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("doctor") == tmp_path / "xdg" / "dropclass_deploy" / "doctor"
    monkeypatch.setenv("DROPCLASS_CACHE", str(tmp_path / "own"))
    assert cache_folder("doctor") == tmp_path / "own" / "doctor"


def test_an_interrupted_reading_keeps_what_it_read(root: Path, cache: Path) -> None:
    class Impatient:
        def note(self, text: str) -> None: ...

        def phase(self, title: str):
            from contextlib import nullcontext

            return nullcontext(self.advance)

        def advance(self, done: int, total: int, status: str = "", /) -> None:
            if done == 4:
                raise KeyboardInterrupt

    layout = survey(f"folder:{root}")
    assert layout is not None
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        examine(layout, reporter=Impatient())
    (file,) = cache.iterdir()
    assert len(json.loads(file.read_text())["files"]) == 4


def test_one_path_may_be_image_and_mask(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), dtype=np.uint8)).save(tmp_path / "a.png")
    cache = FactsCache(tmp_path / "cache", tmp_path, None)
    stamp = stamp_of(tmp_path / "a.png")
    cache.put(tmp_path / "a.png", stamp, MaskFacts(height=2, width=2, values=((0, 4),)))
    from dropclass_deploy.data.doctor.facts import ImageFacts

    assert cache.get(ImageFacts, tmp_path / "a.png", stamp) is None
    assert cache.get(MaskFacts, tmp_path / "a.png", stamp) is not None
