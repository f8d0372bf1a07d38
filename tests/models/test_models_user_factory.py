"""``python:`` names: a user's own code, and every way in which it can go wrong."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dropclass_deploy.core.errors import DataError, ModelError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.models import build_model, default_preprocess, rebuildable

HERE = "python:factories_for_tests"


def test_the_factory_gets_the_classes_and_the_options():
    model = build_model(f"{HERE}:tiny", num_classes=6, width=5)
    assert model.head.weight.shape == (6, 5, 1, 1)


def test_a_class_is_a_factory_too():
    assert build_model(f"{HERE}:Tiny", num_classes=2, width=4).head.out_channels == 2


def test_options_of_any_name_reach_a_factory_that_takes_them():
    assert build_model(f"{HERE}:any_options", num_classes=2, colour=1, depth=2).head.in_channels == 3


def test_its_normalisation_is_imagenets():
    assert default_preprocess(f"{HERE}:tiny") == Preprocess()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("python:", r"there is no model 'python:'; expected python:package.module:factory"),
        ("python:only_a_module", r"there is no model .*; expected python:package.module:factory"),
        ("python:../evil:factory", r"there is no model .*; expected python:package.module:factory"),
        ("python:no.such:tiny", r"no Python module 'no.such'; expected .* no/such.py below .*; .* PYTHONPATH$"),
        (f"{HERE}:tinyy", r"'factories_for_tests' has no 'tinyy'; expected a factory, such as tiny"),
        (f"{HERE}:not_callable", r"'factories_for_tests:not_callable' is a int; expected a function or class"),
        (f"{HERE}:without_classes", r"does not fit: .*; expected one that is called as factory\(num_classes=…\)"),
        (f"{HERE}:raises", r"factories_for_tests:raises raised RuntimeError: the disk of my encoder is gone; mend it"),
        (f"{HERE}:exits", r"factories_for_tests:exits raised SystemExit: 0; mend it"),
        (f"{HERE}:returns_nothing", r"returned a NoneType; expected a torch.nn.Module"),
    ],
)
def test_each_mistake_is_one_clear_line(name: str, message: str):
    with pytest.raises(ModelError, match=message) as caught:
        build_model(name, num_classes=3)
    assert "\n" not in str(caught.value)


def test_an_option_that_the_factory_does_not_take():
    with pytest.raises(
        ModelError, match=r"tiny does not fit: .*'colour'; expected .*factory\(num_classes=…, colour=…\)"
    ):
        build_model(f"{HERE}:tiny", num_classes=3, colour=4)


def test_the_packages_own_errors_keep_their_words():
    with pytest.raises(DataError, match=r"^a mistake with its own words$"):
        build_model(f"{HERE}:raises_ours", num_classes=3)


def test_a_module_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "models_beside.py").write_text(
        "from torch import nn\ndef head(num_classes):\n    return nn.Conv2d(3, num_classes, 1)\n"
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert build_model("python:models_beside:head", num_classes=4).out_channels == 4
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import no_such_thing",
            "'broken_PARAM' cannot be imported: ModuleNotFoundError: No module named 'no_such_thing'",
        ),
        ("def f(:", "'broken_PARAM' cannot be imported: SyntaxError"),
        ("1 / 0", "'broken_PARAM' cannot be imported: ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_does_not_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str):
    name = f"broken_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=message.replace("broken_PARAM", name)):
        build_model(f"python:{name}:factory", num_classes=3)


def test_weights_from_a_file_and_under_keys_that_begin_as_wrappers_do(tmp_path: Path):
    source = build_model(f"{HERE}:tiny", num_classes=3)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    loaded = build_model(f"{HERE}:tiny", num_classes=3, weights=str(tmp_path / "w.safetensors")).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in source.state_dict().items())


def test_only_the_libraries_networks_are_rebuilt_from_a_name_alone():
    assert rebuildable("unet")
    assert rebuildable("timm:resnet18")
    assert not rebuildable(f"{HERE}:tiny")
    assert not rebuildable("somebody's")
