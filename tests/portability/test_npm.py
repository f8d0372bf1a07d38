"""The JavaScript packages: what is pinned, and what is said when they cannot be had."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from portability_engines.npm import FOLDER, NpmError, node_modules, package_version


def test_without_node_the_reason_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NpmError, match="node and npm are not installed"):
        node_modules()


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A PATH with a node of version 20.9 and an npm that fails as it does without a network, and counts its runs."""
    program(tmp_path / "bin/node", "echo v20.9.0")
    program(tmp_path / "bin/npm", f'echo "$@" >> {tmp_path}/runs; echo "npm error code EAI_AGAIN" >&2; exit 1')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(FOLDER / name, tmp_path)
    return tmp_path


def program(path: Path, command: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)


def test_after_a_failure_nobody_waits_again(programs: Path) -> None:
    for _ in range(3):
        with pytest.raises(NpmError, match="npm ci failed: npm error code EAI_AGAIN"):
            node_modules(programs)
    (run,) = (programs / "runs").read_text().splitlines()
    assert "--fetch-retries=0 --fetch-timeout=10000" in run


def test_an_old_failure_is_not_believed(programs: Path) -> None:
    with pytest.raises(NpmError, match="EAI_AGAIN"):
        node_modules(programs)
    os.utime(programs / ".npm.failed", (0, 0))
    program(programs / "bin/npm", "mkdir node_modules")
    assert node_modules(programs) == programs / "node_modules"
    assert not (programs / ".npm.failed").exists()


@pytest.mark.parametrize("version", ["v20.8.1", "v18.19.0", ""])
def test_a_node_that_is_too_old_is_named(programs: Path, version: str) -> None:
    program(programs / "bin/node", f"echo {version}")
    with pytest.raises(NpmError, match=r"node is .* and >=20\.9 is needed"):
        node_modules(programs)
    assert not (programs / "runs").exists()


def test_packages_are_pinned_by_digest_and_to_no_host() -> None:
    lock = json.loads((FOLDER / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert not any("resolved" in entry for entry in packages.values())


def test_the_lock_file_has_the_versions_that_package_json_names() -> None:
    wanted = json.loads((FOLDER / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    assert {name: package_version(name) for name in wanted} == wanted
