"""What importing a room may bring along, seen in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import dropclass_deploy

PACKAGE = Path(dropclass_deploy.__file__).parent
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
# Training code and its weight: an embedded or served model must do without them.
TRAINING_LIBRARIES = {"torch", "torchvision", "timm", "accelerate", "safetensors"}
# Brought by extras: reading an artifact needs only the base install.
EXTRAS = {"onnx", "onnxruntime", "onnxscript", "matplotlib", "jinja2", "openvino", "tensorrt", "ray"}

IMPORT_AND_LIST = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def modules_of(room: str) -> list[str]:
    paths = sorted(path for path in (PACKAGE / room).rglob("*.py") if path.name != "__main__.py")
    parts = (path.relative_to(PACKAGE.parent).with_suffix("").parts for path in paths)
    return [".".join(part).removesuffix(".__init__") for part in parts]


@cache
def loaded_by(*modules: str) -> set[str]:
    command = [sys.executable, "-c", IMPORT_AND_LIST, json.dumps(modules)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_walk_finds_the_rooms_and_their_modules() -> None:
    assert {"core", "data", "serving", "models", "training", "export", "analysis", "cli"} <= set(ROOMS)
    assert "dropclass_deploy.core.manifest" in modules_of("core")
    assert "dropclass_deploy.core" in modules_of("core")


@pytest.mark.parametrize("room", ["core", "data", "serving"])
def test_every_module_imports_without_torch(room: str) -> None:
    assert loaded_by(*modules_of(room)) & TRAINING_LIBRARIES == set()


@pytest.mark.parametrize("room", ["core", "data"])
def test_the_base_install_is_enough(room: str) -> None:
    assert loaded_by(*modules_of(room)) & EXTRAS == set()


def test_importing_serving_alone_starts_no_runtime() -> None:
    assert loaded_by("dropclass_deploy.serving") & EXTRAS == set()


def test_every_module_imports() -> None:
    modules = [module for room in ROOMS for module in modules_of(room)]
    assert "dropclass_deploy" in loaded_by(*modules)
