"""The built wheel in an empty environment: light, complete, and clear about what is not installed."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd, timeout=400)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bin`` of an environment that holds the wheel and its base dependencies, nothing else."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    installed = run(*pip, "--constraint", ROOT / "constraints.txt", wheel)
    assert installed.returncode == 0, installed.stderr
    return folder / "bin"


def test_the_wheel_carries_recipes_templates_and_the_type_marker(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / "dropclass_deploy").rglob("*.yaml")}
    shipped |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "dropclass_deploy").rglob("templates/*")}
    assert len(shipped) >= 6
    assert shipped | {"dropclass_deploy/py.typed"} <= names
    assert not any(name.startswith("tests/") for name in names)


@pytest.mark.slow
@pytest.mark.chosen
def test_the_base_install_is_light_and_the_command_runs(environment: Path, tmp_path: Path) -> None:
    listed = run(environment / "python", "-m", "pip", "list", "--format=freeze").stdout.lower()
    for heavy in ("torch", "onnx", "matplotlib", "timm"):
        assert f"\n{heavy}==" not in "\n" + listed
    result = run(environment / "dropclass", "--version", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.startswith("dropclass ")


@pytest.mark.slow
@pytest.mark.chosen
def test_what_is_not_installed_is_named_with_its_extra(environment: Path, tmp_path: Path) -> None:
    result = run(environment / "dropclass", "train", "recipe.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert "pip install 'dropclass-deploy[train]'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.chosen
def test_reading_an_artifact_needs_no_torch(environment: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dropclass_deploy.core.classes import ClassTable\n"
        "from dropclass_deploy.core.manifest import *; from dropclass_deploy.core.preprocess import Preprocess\n"
        "m = Manifest(name='a', model='lite0', deploy_head='plain', precision='fp32', shape=(None, None, None), opset=18,\n"
        "  classes=ClassTable(names=('a', 'b')), preprocess=Preprocess(), files={}, versions={}, provenance={})\n"
        "write_manifest(Path('.'), m); assert read_manifest(Path('.')) == m\n"
        "import dropclass_deploy.serving, dropclass_deploy.data; assert 'torch' not in sys.modules; print('read')"
    )
    result = run(environment / "python", "-c", code, cwd=tmp_path)
    assert result.stdout.strip() == "read", result.stderr
