"""The JavaScript packages: what is pinned, and what is said when they cannot be had."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from portability_engines.npm import FOLDER, NpmError, node_modules, package_version


def test_without_node_the_reason_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NpmError, match="node and npm are not installed"):
        node_modules()


def test_packages_are_pinned_by_digest_and_to_no_host() -> None:
    lock = json.loads((FOLDER / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert not any("resolved" in entry for entry in packages.values())


def test_the_lock_file_has_the_versions_that_package_json_names() -> None:
    wanted = json.loads((FOLDER / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    assert {name: package_version(name) for name in wanted} == wanted
