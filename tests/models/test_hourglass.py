"""Hourglass(n, c): its shapes, what each switch takes away, and its way through DropClass, folding and ONNX."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from network_checks import check_dropclass, check_gradients, check_onnx, images, parameters
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models import build_model
from dropclass_deploy.training.recipe import load_recipe

SWITCHES = [
    {},
    {"intra_skips": False},
    {"inter_skips": False},
    {"norm": "none"},
    {"activation": "gelu"},
    {"activation": "none"},
    {"intra_skips": False, "inter_skips": False, "norm": "none", "activation": "none", "dropout": 0},
]


def small(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return build_model("hourglass", num_classes=3, **{"blocks": 2, "channels": 4, **options})


def test_blocks_halve_and_double_and_channels_double_and_halve():
    model = small(blocks=3).eval()
    with torch.no_grad():
        maps = model.encoder(images(1, 9, 14))
        assert [tuple(one.shape[1:]) for one in maps] == [(4, 9, 14), (8, 5, 7), (16, 3, 4), (16, 2, 2)]
        assert model.decoder(maps).shape == (1, 4, 9, 14)
    assert len(model.encoder.blocks) == len(model.decoder.blocks) == 3


# Hourglass(2, 4): blocks 3 → 4, 4 → 8, waist 8 → 8, then 8 → 4, 4 → 4. A block i → o has 9·i·o + 9·o·o weights and two
# BatchNorms of 2·o: 268 + 896 + 1184 + 448 + 304 = 3100; the classifier has 4·3 + 3. Shortcuts where channels change
# (3 → 4, 4 → 8, 8 → 4), i·o + 2·o each: 20 + 48 + 40.
PLAIN, SHORTCUTS = 3100 + 15, 108
# Without BatchNorm, two biases of o instead of two times 2·o in each block (28 channels in all blocks together), and
# nothing instead of 2·o in the three shortcuts (16 channels).
NO_NORM = -2 * 28 - 2 * 16


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, PLAIN + SHORTCUTS),
        ({"intra_skips": False}, PLAIN),
        ({"inter_skips": False}, PLAIN + SHORTCUTS),
        ({"norm": "none"}, PLAIN + SHORTCUTS + NO_NORM),
        ({"activation": "gelu"}, PLAIN + SHORTCUTS),
        ({"activation": "none"}, PLAIN + SHORTCUTS),
        ({"dropout": 0.5}, PLAIN + SHORTCUTS),
    ],
)
def test_parameters_by_hand(options: dict[str, object], expected: int):
    assert parameters(small(**options)) == expected


def test_a_block_is_what_its_formula_says():
    block = small(blocks=1).double().eval().encoder.blocks[0]
    given = images(1, 5, 6).double()
    first, norm1, _, _, second, norm2 = block.convs
    shortcut, norm3 = block.shortcut
    for norm in (norm1, norm2, norm3):  # fresh statistics are 0 and 1, which would hide a norm left out
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)

    def normed(norm: nn.BatchNorm2d, maps: Tensor) -> Tensor:
        shape = (1, -1, 1, 1)
        return (maps - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()

    with torch.no_grad():
        inner = normed(norm1, F.conv2d(given, first.weight, padding=1)).clamp(min=0)
        added = torch.einsum("oi,nihw->nohw", shortcut.weight[:, :, 0, 0], given)
        expected = (normed(norm2, F.conv2d(inner, second.weight, padding=1)) + normed(norm3, added)).clamp(min=0)
        torch.testing.assert_close(block(given), expected)  # float64: the default tolerance of 1e-7


def test_skips_between_blocks_add_the_encoders_map():
    # A waist and a coarser map of zeros: what is left reaches the last block through the skip alone.
    with_skips, without = small(blocks=1).eval(), small(blocks=1, inter_skips=False).eval()
    fine, coarse = images(1, 7, 9)[:, :1].expand(1, 4, 7, 9), torch.zeros(1, 4, 4, 5)
    with torch.no_grad():
        assert torch.equal(with_skips.decoder([fine, coarse]), with_skips.decoder.blocks[0](fine))
        assert torch.equal(without.decoder([fine, coarse]), without.decoder.blocks[0](torch.zeros_like(fine)))


def test_without_skips_the_output_depends_on_the_waist_alone():
    model = small(inter_skips=False).eval()
    maps = model.encoder(images(1, 12, 16))
    for one in maps:
        one.retain_grad()
    model.decoder(maps).sum().backward()
    # The finer maps reach the output through the pooling alone: at most one pixel of each 2×2.
    assert maps[-1].grad.all(dim=1).any()
    assert maps[0].grad.ne(0).sum() <= maps[0].numel() // 4


def test_dropout_stands_in_every_block_and_only_in_training():
    model = small(dropout=0.4)
    assert [one.p for one in model.modules() if isinstance(one, nn.Dropout)] == [0.4] * 5
    given = images(2, 16, 16)
    with torch.no_grad():
        assert not torch.equal(model(given), model(given))
        model.eval()
        assert torch.equal(model(given), model(given))
        still = small(dropout=0)
        assert torch.equal(still(given), still(given))


@pytest.mark.parametrize("options", SWITCHES)
def test_every_parameter_gets_a_finite_gradient(options: dict[str, object]):
    check_gradients(small(**options).to(memory_format=torch.channels_last))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_finite_gradients(dtype: torch.dtype):
    model = small()
    with torch.autocast("cpu", dtype=dtype):
        loss = F.cross_entropy(model(images(2, 32, 32)).float(), torch.zeros(2, 32, 32, dtype=torch.long))
    loss.backward()
    assert all(one.grad.isfinite().all() for one in model.parameters())


@pytest.mark.parametrize("options", SWITCHES)
def test_dropclass_finds_strips_and_folds(options: dict[str, object]):
    found, folded = check_dropclass(small(**options))
    relu = options.get("activation", "relu") == "relu"
    assert (found.path, found.channels, found.align_corners, found.linear) == ("classifier", 4, None, True)
    assert found.non_negative is relu
    assert folded.conv.in_channels == (4 if relu else 8)


def test_onnx_runtime_gives_the_same_logits_at_other_sizes(tmp_path: Path):
    check_onnx(small(activation="gelu"), tmp_path / "model.onnx")


def test_a_checkpoint_of_the_whole_network_loads(tmp_path: Path):
    model = small()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    torch.manual_seed(5)
    again = build_model("hourglass", 3, str(tmp_path / "w.pth"), blocks=2, channels=4)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_checkpoint_without_shortcuts_does_not_fit_a_network_with_them(tmp_path: Path):
    torch.save(small(intra_skips=False).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"tensors missing .*shortcut.*; expected the \d+ tensors of this network"):
        build_model("hourglass", 3, str(tmp_path / "w.pth"), blocks=2, channels=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 0}, r"blocks is 0; expected 1 … 6 blocks"),
        ({"blocks": 7}, r"blocks is 7; expected 1 … 6"),
        ({"blocks": True}, r"blocks is True; expected 1 … 6"),
        ({"channels": 3}, r"channels is 3; expected 4 … 256 channels of the first block"),
        ({"channels": "16"}, r"channels is '16'; expected 4 … 256"),
        ({"intra_skips": 1}, r"intra_skips is 1; expected true or false"),
        ({"inter_skips": "no"}, r"inter_skips is 'no'; expected true or false"),
        ({"norm": None}, r"norm is None; expected one of batch, none"),
        ({"norm": "group"}, r"norm is 'group'; expected one of batch, none"),
        ({"activation": "swish"}, r"activation is 'swish'; expected one of relu, gelu, none"),
        ({"activation": ["relu"]}, r"activation is \['relu'\]; expected one of relu, gelu, none"),
        ({"dropout": 1}, r"dropout is 1; expected a number from 0 to below 1"),
        ({"dropout": -0.1}, r"dropout is -0\.1; expected a number from 0"),
        ({"dropout": float("nan")}, r"dropout is nan; expected a number from 0"),
        ({"dropout": True}, r"dropout is True; expected a number from 0"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str):
    with pytest.raises(ModelError, match=message):
        small(**options)


def test_the_recipe_is_the_issues_and_its_network_is_built():
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / "hourglass.yaml")
    train = recipe.train
    assert (train.optimizer, train.lr, train.weight_decay) == ("adam", 1e-3, 1e-4)
    assert train.steps == 40 * 367 / train.batch_size
    assert (recipe.method.name, recipe.method.components) == ("ce", ("median_frequency", "dice"))
    model = build_model(recipe.model.name, 11, recipe.model.weights, **recipe.model.options)
    assert model.classifier.out_channels == 11
