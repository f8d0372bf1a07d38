"""Checkpoints that almost fit: adapted and said, or refused with the keys."""

import logging
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models import build_model
from dropclass_deploy.models.fitting import Target, adapt_channels, load_fitting

BACKBONE = "test_efficientnet"
NAME = f"timm:{BACKBONE}"


@pytest.fixture(scope="module")
def classification() -> dict[str, Tensor]:
    """The state dict of timm's classification network, head and all."""
    torch.manual_seed(5)
    return timm.create_model(BACKBONE, pretrained=False).state_dict()


def saved(state: dict[str, Tensor], folder: Path) -> str:
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "weights.safetensors")
    return str(folder / "weights.safetensors")


def backbone_of(model: nn.Module) -> dict[str, Tensor]:
    return {key.removeprefix("encoder.backbone."): value for key, value in model.state_dict().items() if "back" in key}


def small(inputs: int = 3, classes: int = 4, width: int = 6) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, classes, 1))


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(value, two[key]) for key, value in one.items())


class TestChannels:
    @pytest.mark.parametrize(("old", "new"), [(1, 3), (4, 3), (3, 4), (3, 1), (2, 5), (7, 3), (3, 3)])
    def test_a_grey_image_gets_the_same_response(self, old: int, new: int):
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(6, old, 3, 3, generator=generator, dtype=torch.float64)
        grey = torch.randn(1, 1, 8, 8, generator=generator, dtype=torch.float64)
        before = nn.functional.conv2d(grey.expand(-1, old, -1, -1), weight)
        after = nn.functional.conv2d(grey.expand(-1, new, -1, -1), adapt_channels(weight, new))
        torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)  # float64 sums in another order

    def test_by_hand(self):
        def weight(*values: float) -> Tensor:
            return torch.tensor(values).reshape(1, -1, 1, 1)

        assert adapt_channels(weight(6.0), 3).flatten().tolist() == [2.0, 2.0, 2.0]
        assert adapt_channels(weight(1.0, 2.0, 3.0, 10.0), 3).flatten().tolist() == [11.0, 2.0, 3.0]
        assert adapt_channels(weight(4.0, 2.0, 3.0), 4).flatten().tolist() == [2.0, 2.0, 3.0, 2.0]

    @pytest.mark.parametrize("old", [1, 4])
    def test_it_is_adapted_and_said(self, old: int, caplog: pytest.LogCaptureFixture):
        network, source = small(), small(inputs=old)
        load_fitting([Target(network)], source.state_dict(), "grey.pth", num_classes=4)
        assert torch.equal(network[0].weight, adapt_channels(source[0].weight, 3))
        assert f"'grey.pth' were adapted: 0.weight from {old} input channels to 3" in caplog.text

    def test_only_the_first_convolution_is(self):
        state = small().state_dict() | {"2.weight": torch.zeros(4, 5, 1, 1)}
        with pytest.raises(
            ModelError, match=r"1 tensors of another shape \(2.weight \(4, 5, 1, 1\) for \(4, 6, 1, 1\)\)"
        ):
            load_fitting([Target(small())], state, "w.pth", num_classes=4)


class TestNames:
    @pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "module.model.", "module._orig_mod."])
    def test_wrappers_fall_off(self, prefix: str):
        network, source = small(), small().state_dict()
        state = {prefix + key: value for key, value in source.items()}
        load_fitting([Target(network)], state, "w.pth", num_classes=4)
        assert same(network.state_dict(), source)

    @pytest.mark.parametrize("prefix", ["", "module.", "encoder.", "backbone.", "model.backbone."])
    def test_a_backbone_is_found_in_a_larger_network(self, prefix: str, classification, tmp_path: Path):
        state = {prefix + key: value for key, value in classification.items()}
        if prefix.endswith(("encoder.", "backbone.")):
            state[prefix.replace("encoder.", "decoder.").replace("backbone.", "neck.") + "weight"] = torch.zeros(3)
        model = build_model(NAME, num_classes=3, weights=saved(state, tmp_path))
        own = backbone_of(model)
        assert own
        assert same(own, {key: classification[key] for key in own})

    @pytest.mark.parametrize("name", ["test_convnext", "test_vit", "test_mambaout"])
    def test_names_that_timm_flattens_or_nests(self, name: str, tmp_path: Path):
        source = timm.create_model(name, pretrained=False).state_dict()
        if name == "test_vit":  # one stride only: refused before its weights matter
            with pytest.raises(ModelError, match="gives feature maps of one stride only"):
                build_model(f"timm:{name}", 3, saved(source, tmp_path))
            return
        own = backbone_of(build_model(f"timm:{name}", 3, saved(source, tmp_path)))
        flat = {key.replace(".", "_"): value for key, value in source.items()}
        assert own
        assert all(torch.equal(value, flat[key.replace(".", "_")]) for key, value in own.items())

    def test_counts_of_batches_may_be_missing(self):
        network, source = small(), small().state_dict()
        old = {key: value for key, value in source.items() if not key.endswith("num_batches_tracked")}
        load_fitting([Target(network)], old, "w.pth", num_classes=4)
        assert same(network.state_dict(), source)

    @pytest.mark.parametrize("model", ["hrnetv1_w18_small", "lite0"])
    def test_a_classification_checkpoint_by_timms_names(self, model: str, tmp_path: Path):
        name = {"hrnetv1_w18_small": "hrnet_w18_small", "lite0": "tf_efficientnet_lite0"}[model]
        source = timm.create_model(name, pretrained=False, num_classes=7).state_dict()
        network = build_model(model, num_classes=3, weights=saved(source, tmp_path))
        own = network.encoder.state_dict()
        assert all(torch.equal(value, source[key]) for key, value in own.items())


class TestClasses:
    @pytest.mark.parametrize(
        ("model", "options"),
        [
            ("lite0", {"width": 8}),
            ("unet", {"width": 4}),
            ("hourglass", {"channels": 4}),
            ("vgg_resnet", {"width": 4}),
            (NAME, {"width": 8}),
            ("hrnetv1_w18_small", {}),
        ],
    )
    def test_a_run_of_other_classes_can_be_tuned_further(self, model: str, options, tmp_path: Path, caplog):
        torch.manual_seed(0)
        source = build_model(model, 5, **options).state_dict()
        torch.manual_seed(1)
        fresh = build_model(model, 3, **options).state_dict()
        torch.manual_seed(1)
        with caplog.at_level(logging.WARNING, "dropclass_deploy"):
            tuned = build_model(model, 3, saved(source, tmp_path), **options).state_dict()
        heads = {"classifier.weight", "classifier.bias"}
        assert all(torch.equal(tuned[key], (fresh if key in heads else source)[key]) for key in tuned)
        assert "another number of classes: classifier.weight, classifier.bias kept their random start" in caplog.text

    def test_the_same_classes_load_whole_and_say_nothing(self, tmp_path: Path, caplog: pytest.LogCaptureFixture):
        source = build_model("unet", 5, width=4).state_dict()
        assert same(build_model("unet", 5, saved(source, tmp_path), width=4).state_dict(), source)
        assert caplog.text == ""


class TestRefusals:
    def test_a_deeper_network_of_the_same_shapes(self, tmp_path: Path):
        # Every tensor of a ResNet-18 has its like in a ResNet-34: silently taking them would be wrong.
        state = timm.create_model("resnet34", pretrained=False).state_dict()
        with pytest.raises(ModelError, match=r"96 tensors unexpected \(layer1\.2\..*, …\)"):
            build_model("timm:resnet18", 3, saved(state, tmp_path))

    def test_the_message_counts_and_shows_the_first_keys(self):
        state = small().state_dict()
        del state["1.weight"]
        state |= {"extra": torch.zeros(1), "2.weight": torch.zeros(4, 6, 3, 3)}
        with pytest.raises(ModelError) as caught:
            load_fitting([Target(small())], state, "w.pth", num_classes=4)
        assert str(caught.value) == (
            "the weights 'w.pth' do not fit: 1 tensors missing (1.weight), 1 tensors unexpected (extra), "
            "1 tensors of another shape (2.weight (4, 6, 3, 3) for (4, 6, 1, 1)); "
            "expected the 9 tensors of this network or of its backbone; "
            "take weights of the same network, or model.weights: null"
        )

    def test_nothing_is_written_when_refused(self):
        network = small()
        before = {key: value.clone() for key, value in network.state_dict().items()}
        with pytest.raises(ModelError, match="do not fit"):
            load_fitting([Target(network)], {"0.weight": torch.zeros(6, 3, 3, 3)}, "w.pth", num_classes=4)
        assert same(network.state_dict(), before)

    @pytest.mark.parametrize("state", [{}, {"a": torch.zeros(1)}])
    def test_a_file_without_a_tensor_of_this_network(self, state: dict[str, Tensor]):
        with pytest.raises(
            ModelError, match=r"do not fit: 8 tensors missing \(0.weight, 0.bias, 1.weight, 1.bias, …\)"
        ):
            load_fitting([Target(small())], state, "w.pth", num_classes=4)

    def test_a_decoder_of_another_width(self, tmp_path: Path):
        path = saved(build_model(NAME, 5, width=16).state_dict(), tmp_path)
        with pytest.raises(
            ModelError, match=r"tensors of another shape \(decoder.lateral.0.weight \(16, 24, 1, 1\) for"
        ):
            build_model(NAME, 5, path, width=8)


def test_parts_of_a_foreign_network_that_are_left_aside_are_said(
    classification: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    own = build_model(NAME, 3, width=8).encoder.backbone.state_dict()
    state = {f"backbone.{key}": classification[key] for key in own} | {"segmentation_head.weight": torch.zeros(2)}
    build_model(NAME, 3, saved(state, tmp_path))
    assert "1 tensors of other parts were left aside" in caplog.text
