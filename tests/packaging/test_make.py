"""What a fresh machine makes of the Makefile and of CI's script; machines are stood in for by their programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HINT = "cannot make an environment with pip: apt-get install python3-venv, then make again"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def program(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


def make_venv(folder: Path, python: Path | str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", "venv", f"PYTHON={python}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def without_ensurepip(folder: Path) -> Path:
    """A python as Debian's is before python3-venv."""
    return program(folder / "python", f'case "$*" in *ensurepip*) exit 1 ;; esac; exec {sys.executable} "$@"')


def test_without_ensurepip_the_package_is_named_and_nothing_made(folder: Path) -> None:
    done = make_venv(folder, without_ensurepip(folder))
    assert done.stdout.splitlines() == [f"{folder / 'python'} {HINT}"]
    assert done.returncode == 2
    assert not (folder / ".venv").exists()


def test_an_environment_without_pip_is_completed(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    assert HINT in make_venv(folder, without_ensurepip(folder)).stdout
    assert make_venv(folder, sys.executable).returncode == 0
    subprocess.run([folder / ".venv/bin/python", "-m", "pip", "--version"], check=True, capture_output=True)
    # A whole one is left as it is, whatever python there is now.
    assert make_venv(folder, without_ensurepip(folder)).returncode == 0


def test_ci_installs_what_is_missing_and_goes_on_without_the_rest(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / ".ci").mkdir()
    script = shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    for name in ("bash", "dirname", "chmod"):
        (programs / name).symlink_to(str(shutil.which(name)))
    program(programs / "id", "echo 0")
    program(programs / "python3", "exit 1")
    stub = f"echo '#!/bin/sh' > {programs}/make; echo 'echo making $1' >> {programs}/make; chmod +x {programs}/make"
    installs = f'case "$*" in *make) {stub} ;; *chromium) exit 100 ;; esac'
    program(programs / "apt-get", f'echo "$@" >> {tmp_path}/asked', installs)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON"} | {"PATH": str(programs)}
    done = subprocess.run(["/bin/bash", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "making test\n"), done.stderr
    assert done.stderr == "chromium could not be installed\n"
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["update -qq", "install -y -qq make", "install -y -qq python3-venv", "install -y -qq chromium"]
