"""Reading what somebody else put there."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from dropclass_deploy.core.regular_files import RefusedFileError, check_json, open_regular, read_json, read_regular


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.json"
    path.write_text('{"a": [1, 2.5, "ä", null, {"a": true}]}', encoding="utf-8")
    return path


def test_a_plain_file_is_read(file: Path) -> None:
    assert json.loads(read_json(file, 1000)) == {"a": [1, 2.5, "ä", None, {"a": True}]}
    with open_regular(str(file)) as stream:
        assert stream.read() == file.read_bytes()


def test_the_limit_is_the_last_size_allowed(file: Path) -> None:
    size = file.stat().st_size
    assert len(read_regular(file, size)) == size
    with pytest.raises(RefusedFileError, match="more than the 0 MiB allowed"):
        read_regular(file, size - 1)


def test_a_link_is_refused_whatever_it_points_to(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("link", "dangling"):
        with pytest.raises(RefusedFileError, match="is a link"):
            read_regular(tmp_path / name, 1000)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(RefusedFileError, match="is no regular file"):
        read_regular(tmp_path / "fifo", 1000)
    with pytest.raises(RefusedFileError, match="is no regular file"):
        read_regular(tmp_path, 1000)
    with pytest.raises(RefusedFileError, match="is no regular file"):
        read_regular(Path("/dev/zero"), 1000)


def test_what_cannot_be_opened_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        read_regular(tmp_path / "gone", 1000)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError, match="socket"):
            read_regular(tmp_path / "socket", 1000)


def test_no_handle_stays_open(tmp_path: Path, file: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in (tmp_path, file):
        for _ in range(20):
            with pytest.raises(RefusedFileError, match=r"regular|allowed"):
                read_regular(path, 1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1, "b": {"a": 1, "a": 2}}', "has the key 'a' twice"),
        (b"[NaN]", "holds NaN"),
        (b"[-Infinity]", "holds -Infinity"),
        (b"[" * 50_000, "nested too deeply"),
        (b"[1" + b"0" * 5000 + b"]", "is no JSON"),
        (b'"\xff"', "is no UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "is no UTF-8"),
        (b"", "is no JSON"),
        (b"{} {}", "is no JSON"),
    ],
)
def test_json_that_readers_understand_differently_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(RefusedFileError, match=message):
        check_json(content)
