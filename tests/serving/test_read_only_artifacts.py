"""An artifact on a disk that nobody can write to: everything works, and what would be written goes where one says.

The commands run in a process of their own, over a read-only mount, or without the rights that a superuser has.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from serving_builders import (
    NAMES,
    MemoryDataset,
    conv_weights,
    dense_masks,
    noisy,
    random_images,
    write_artifact,
)

from dropclass_deploy.data.images import write_png

MOUNT = "mount --bind {0} {0} && mount -o remount,ro,bind {0} && "
WITHOUT_RIGHTS = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
RUN_ALL = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from dropclass_deploy.cli.app import run
found = []
for command in json.load(sys.stdin):
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as errors:
        code = run(command)
    found.append([code, errors.getvalue()])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with disk/artifact, and data beside the disk."""
    root = tmp_path_factory.mktemp("read-only")
    images = random_images(12, (24, 32))
    masks = dense_masks(images, conv_weights())
    data = MemoryDataset(images, noisy(masks))
    for index, (image, label) in enumerate(zip(data.images, data.masks, strict=True)):
        write_png(root / f"data/images/{index}.png", image)
        write_png(root / f"data/masks/{index}.png", label)
    rows = "".join(f"  - {{name: {name}, value: {index}}}\n" for index, name in enumerate(NAMES))
    (root / "data/classes.yaml").write_text("classes:\n" + rows)
    write_artifact(root / "disk/artifact", references=(data, masks))
    return root


def wrapped(way: str, disk: Path, command: Sequence[str]) -> list[str]:
    """The command where ``disk`` cannot be written to; skips the test where this machine has no such way."""
    if way == "mounted":
        mount = MOUNT.format(shlex.quote(str(disk)))
        if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "sh", "-c", mount + "true"]).returncode:
            pytest.skip("no read-only mount can be made here (needs unshare and its rights)")
        return ["unshare", "-m", "sh", "-c", mount + shlex.join(command)]
    for path in (disk, *disk.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    if os.geteuid() != 0:
        return list(command)
    if shutil.which("setpriv") is None or subprocess.run([*WITHOUT_RIGHTS, "true"]).returncode:
        pytest.skip("root's rights cannot be taken away here (needs setpriv)")
    return [*WITHOUT_RIGHTS, *command]


@pytest.mark.parametrize("evidence", [False, True])
@pytest.mark.parametrize("way", ["mounted", "forbidden"])
def test_everything_works_and_evidence_goes_elsewhere(place: Path, tmp_path: Path, way: str, evidence: bool) -> None:
    disk = Path(shutil.copytree(place / "disk", tmp_path / "disk"))
    if evidence:
        (disk / "artifact/evidence").mkdir()
    artifact, data = str(disk / "artifact"), f"folder:{place / 'data'}"
    commands = {
        "predict": ["predict", artifact, str(place / "data/images/0.png"), "-o", str(tmp_path / "masks")],
        "evaluate": ["evaluate", artifact, "--data", data, "--split", "all"],
        "verify": ["verify", artifact, "--data", data, "--split", "all", "--evidence", str(tmp_path / "evidence")],
        "bench": [
            "bench",
            artifact,
            "--no-peers",
            "--queries",
            "2",
            "--warmup",
            "0",
            "-o",
            str(tmp_path / "bench.json"),
        ],
        "verify here": ["verify", artifact, "--data", data, "--split", "all"],
        "bench here": ["bench", artifact, "--no-peers", "--queries", "2", "--warmup", "0"],
    }
    found = dict(zip(commands, run_all(wrapped(way, disk, [sys.executable, "-c", RUN_ALL]), commands), strict=True))
    for name in ("predict", "evaluate", "verify", "bench"):
        assert found[name][0] == 0, found[name]
    assert json.loads((tmp_path / "evidence/parity.json").read_text())["verdict"] == "pass"
    assert (tmp_path / "bench.json").is_file()
    assert (tmp_path / "masks/0.png").is_file()
    reason = "Read-only file system" if way == "mounted" else "Permission denied"
    for name, option in (("verify here", "--evidence"), ("bench here", "-o")):
        code, errors = found[name]
        assert code == 2
        line = errors.strip().splitlines()[-1]
        assert f"cannot be written ({reason})" in line
        assert line.endswith(f"name another with {option}")
        # Before any work: no image was segmented, no query made.
        assert "/12 after" not in errors
    assert list((disk / "artifact").rglob("*.json.*")) == []


def run_all(command: list[str], commands: dict[str, list[str]]) -> list[Any]:
    finished = subprocess.run(
        command, input=json.dumps(list(commands.values())), capture_output=True, text=True, timeout=120, cwd=Path.cwd()
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_a_file_in_the_place_of_evidence(place: Path, tmp_path: Path) -> None:
    from dropclass_deploy.core.errors import UserError
    from dropclass_deploy.serving import verify

    artifact = Path(shutil.copytree(place / "disk/artifact", tmp_path / "artifact"))
    (artifact / "evidence").write_text("a file")
    with pytest.raises(
        UserError, match=r"parity\.json cannot be written \(File exists\).*name another with --evidence"
    ):
        verify(artifact, data=f"folder:{place / 'data'}", split="all")
