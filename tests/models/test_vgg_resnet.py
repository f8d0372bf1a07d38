"""VGG-ResNet(a, b): the backbone's switches, both tasks on it, and its way through DropClass, folding and ONNX."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from network_checks import check_dropclass, check_gradients, check_onnx, images, parameters
from torch import nn
from torchvision.models.resnet import BasicBlock

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models import build_model, vgg_resnet_classifier
from dropclass_deploy.models.vgg_resnet import VGGResNet
from dropclass_deploy.training.recipe import load_recipe

SWITCHES = [
    {"down": "maxpool", "skips": False},
    {"down": "stride", "skips": True},
    {"convs": 1, "norm": "none"},
    {"convs": 3, "activation": "gelu"},
    {"activation": "none", "decoder": "unet"},
    {"stages": 1},
]
SMALL = {"stages": 3, "convs": 2, "width": 4}


def small(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return build_model("vgg_resnet", num_classes=3, **{**SMALL, **options})


def build(task: str, num_classes: int, weights: str | None = None) -> nn.Module:
    if task == "classifier":
        return vgg_resnet_classifier(num_classes, weights, **SMALL)
    return build_model("vgg_resnet", num_classes, weights, **SMALL)


@pytest.mark.parametrize("down", ["maxpool", "stride"])
def test_each_stage_but_the_first_halves_and_rounds_up(down: str):
    backbone = VGGResNet(stages=4, width=4, down=down).eval()
    with torch.no_grad():
        shapes = [tuple(one.shape[1:]) for one in backbone(images(1, 9, 14))]
    assert shapes == [(4, 9, 14), (8, 5, 7), (16, 3, 4), (32, 2, 2)]
    assert backbone.channels == [4, 8, 16, 32]


# VGG-ResNet(3, 2) of width 4: stages 3 → 4, 4 → 8, 8 → 16 of 9·i·o + 9·o·o weights and two BatchNorms of 2·o:
# 252 + 16, 864 + 32, 3456 + 64. Shortcuts i·o + 2·o: 12 + 8, 32 + 16, 128 + 32.
PLAIN, SHORTCUTS = 268 + 896 + 3520, 20 + 48 + 160


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, PLAIN + SHORTCUTS),
        ({"skips": False}, PLAIN),
        ({"down": "stride"}, PLAIN + SHORTCUTS),
        ({"down": "stride", "skips": False}, PLAIN),
        ({"activation": "gelu"}, PLAIN + SHORTCUTS),
        # Two biases of o instead of two times 2·o in a stage; no 2·o in a shortcut; 28 channels in all stages together.
        ({"norm": "none"}, PLAIN + SHORTCUTS - 2 * 28 - 2 * 28),
        # One convolution less: 9·o·o and a BatchNorm.
        ({"convs": 1}, PLAIN + SHORTCUTS - 9 * (16 + 64 + 256) - 2 * 28),
        ({"convs": 3}, PLAIN + SHORTCUTS + 9 * (16 + 64 + 256) + 2 * 28),
        ({"stages": 2}, 268 + 896 + 68),
    ],
)
def test_parameters_by_hand(options: dict[str, object], expected: int):
    assert parameters(VGGResNet(**{**SMALL, **options})) == expected
    # The classifier has its linear layer besides: 16·5 + 5, or 8·5 + 5 after two stages.
    head = 45 if options.get("stages") == 2 else 85
    assert parameters(vgg_resnet_classifier(5, **{**SMALL, **options})) == expected + head


def test_two_strided_convolutions_and_a_shortcut_are_resnets_basic_block():
    torch.manual_seed(0)
    stage = VGGResNet(stages=2, width=4, down="stride").stages[1]
    projection = nn.Sequential(nn.Conv2d(4, 8, 1, 2, bias=False), nn.BatchNorm2d(8))
    reference = BasicBlock(4, 8, stride=2, downsample=projection)
    # Same tensors in the same order: conv, norm, conv, norm, projection, its norm.
    reference.load_state_dict(dict(zip(reference.state_dict(), stage.state_dict().values(), strict=True)))
    given = images(8, 9, 11).view(6, 4, 9, 11)
    for mode in (True, False):
        with torch.no_grad():
            found, expected = stage.train(mode)(given), reference.train(mode)(given)
        # The shortcut's four products a pixel, strided or thinned before, may be summed in another order.
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_training_in_channels_last_with_few_channels_leaves_the_memory_intact():
    # A strided 1×1 convolution of 4 channels would end the process here, or give wrong gradients: oneDNN #6035.
    torch.manual_seed(0)
    model = VGGResNet(stages=2, width=4, down="stride", norm="none", activation="gelu")
    reference = copy.deepcopy(model).double()
    given = images(2, 32, 48)
    for _ in range(5):
        model.zero_grad()
        model.to(memory_format=torch.channels_last)(given.to(memory_format=torch.channels_last))[-1].sum().backward()
    reference(given.double())[-1].sum().backward()
    for one, other in zip(model.parameters(), reference.parameters(), strict=True):
        # Sums of 2·32·48 values of order 1, in float32 against float64.
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-2)


def test_without_shortcuts_it_is_vggs_stack():
    backbone = VGGResNet(stages=2, convs=2, width=4, skips=False, norm="none").eval()
    given = images(1, 9, 10)
    with torch.no_grad():
        maps = given
        for index, stage in enumerate(backbone.stages):
            maps = F.max_pool2d(maps, 2, ceil_mode=True) if index else maps
            for conv in (module for module in stage.modules() if isinstance(module, nn.Conv2d)):
                maps = F.conv2d(maps, conv.weight, conv.bias, padding=1).clamp(min=0)
        assert torch.equal(backbone(given)[-1], maps)


@pytest.mark.parametrize("options", SWITCHES)
def test_every_parameter_gets_a_finite_gradient(options: dict[str, object]):
    check_gradients(small(**options).to(memory_format=torch.channels_last))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_finite_gradients(dtype: torch.dtype):
    model = vgg_resnet_classifier(5, **SMALL)
    with torch.autocast("cpu", dtype=dtype):
        loss = F.cross_entropy(model(images(4, 28, 28)).float(), torch.arange(4))
    loss.backward()
    assert all(one.grad.isfinite().all() for one in model.parameters())


@pytest.mark.parametrize("options", SWITCHES)
def test_dropclass_finds_strips_and_folds(options: dict[str, object]):
    found, _ = check_dropclass(small(**options))
    assert (found.path, found.channels, found.align_corners, found.linear) == ("classifier", 4, None, True)
    assert found.non_negative  # the decoder's own ReLU


@pytest.mark.slow
def test_onnx_runtime_gives_the_same_logits_at_other_sizes(tmp_path: Path):
    check_onnx(small(down="stride"), tmp_path / "model.onnx")


@pytest.mark.parametrize("size", [(28, 28), (64, 64), (33, 47), (5, 3), (1, 1)])
def test_the_classifier_takes_small_images_and_ignores_their_size(size: tuple[int, int]):
    model = vgg_resnet_classifier(7, stages=4, width=4).eval()
    with torch.no_grad():
        assert model(images(2, *size)).shape == (2, 7)


def test_the_classifier_averages_the_last_map():
    model = vgg_resnet_classifier(5, **SMALL).double().eval()
    given = images(2, 12, 10).double()
    with torch.no_grad():
        last = model.encoder(given)[-1]
        average = sum(last[:, :, y, x] for y in range(3) for x in range(3)) / 9  # ⌈12 / 4⌉ × ⌈10 / 4⌉
        expected = average @ model.head.weight.T + model.head.bias
        torch.testing.assert_close(model(given), expected)  # float64: the default tolerance of 1e-7


def test_the_classifier_learns_which_half_is_bright():
    torch.manual_seed(0)
    model = vgg_resnet_classifier(2, stages=2, width=4)
    labels = torch.arange(16) % 2
    given = 0.1 * images(16, 28, 28)
    given[labels == 0, :, :14] += 1
    given[labels == 1, :, :, :14] += 1  # the upper half or the left one: the same brightness, another edge
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(given), labels).backward()
        optimizer.step()
    with torch.no_grad():
        assert (model(given).argmax(1) == labels).all()


class TestOneBackboneForBothTasks:
    def test_its_state_dict_goes_from_one_into_the_other(self):
        classifier, network = vgg_resnet_classifier(5, **SMALL), small()
        network.encoder.load_state_dict(classifier.encoder.state_dict())
        given = images(1, 16, 16)
        for one, other in zip(classifier.eval().encoder(given), network.eval().encoder(given), strict=True):
            assert torch.equal(one, other)

    @pytest.mark.parametrize("part", ["whole", "backbone"])
    @pytest.mark.parametrize(("task", "other"), [("classifier", "segmentation"), ("segmentation", "classifier")])
    def test_a_checkpoint_file_of_the_other_gives_its_backbone(
        self, part: str, task: str, other: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        torch.manual_seed(7)
        source = build(other, 5)
        torch.save((source if part == "whole" else source.encoder).state_dict(), tmp_path / "w.pth")
        torch.manual_seed(8)
        model, wanted = build(task, 4, str(tmp_path / "w.pth")), source.encoder.state_dict()
        assert all(torch.equal(value, wanted[key]) for key, value in model.encoder.state_dict().items())
        assert ("tensors of other parts were left aside" in caplog.text) is (part == "whole")

    @pytest.mark.parametrize("task", ["classifier", "segmentation"])
    def test_a_checkpoint_of_the_same_network_loads_whole(self, task: str, tmp_path: Path):
        source = build(task, 5).state_dict()
        torch.save(source, tmp_path / "w.pth")
        loaded = build(task, 5, str(tmp_path / "w.pth")).state_dict()
        assert all(torch.equal(value, source[key]) for key, value in loaded.items())

    def test_a_checkpoint_of_other_stages_is_refused(self, tmp_path: Path):
        torch.save(vgg_resnet_classifier(5, stages=4, width=4).state_dict(), tmp_path / "w.pth")
        with pytest.raises(ModelError, match=r"do not fit: \d+ tensors unexpected \(stages\.3\."):
            build_model("vgg_resnet", 3, str(tmp_path / "w.pth"), **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": 0}, r"stages is 0; expected 1 … 6 stages"),
        ({"stages": 2.0}, r"stages is 2\.0; expected 1 … 6"),
        ({"convs": 9}, r"convs is 9; expected 1 … 8 convolutions a stage"),
        ({"convs": True}, r"convs is True; expected 1 … 8"),
        ({"width": 3}, r"width is 3; expected 4 … 256 channels of the first stage"),
        ({"down": "avgpool"}, r"down is 'avgpool'; expected one of maxpool, stride"),
        ({"skips": 0}, r"skips is 0; expected true or false"),
        ({"norm": "layer"}, r"norm is 'layer'; expected one of batch, none"),
        ({"activation": None}, r"activation is None; expected one of relu, gelu, none"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str):
    for factory in (small, lambda **options: vgg_resnet_classifier(3, **options)):
        with pytest.raises(ModelError, match=message):
            factory(**options)


def test_an_unknown_decoder_and_a_class_count_out_of_range():
    with pytest.raises(ModelError, match=r"decoder is 'fpn'; expected one of lite, unet"):
        small(decoder="fpn")
    for count in (1, 65_537, 5.0, True):
        with pytest.raises(ModelError, match=rf"num_classes is {count!r}; expected 2 … 65536 classes"):
            vgg_resnet_classifier(count)  # type: ignore[arg-type]


def test_the_recipe_is_the_issues_and_its_network_is_built():
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / "vgg_resnet.yaml")
    train = recipe.train
    assert (train.optimizer, train.lr, train.weight_decay) == ("adam", 1e-3, 1e-4)
    assert train.steps == 40 * 367 / train.batch_size
    assert (recipe.method.name, recipe.method.components) == ("ce", ("median_frequency", "dice"))
    model = build_model(recipe.model.name, 11, recipe.model.weights, **recipe.model.options)
    assert model.classifier.out_channels == 11
