"""DropClass around a network: what comes out, and that the network inside stays as it was."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError, UserError
from dropclass_deploy.training.dropclass import DropClass, drop_features


class Network(nn.Module):
    """A body with BatchNorm and dropout, a 1×1 classifier at a quarter of the size, a resize."""

    def __init__(self, classes: int = 5, classifier: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.2)
        )
        self.classifier = classifier or nn.Conv2d(8, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.classifier(self.body(images))
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


def network(seed: int = 0, **options) -> Network:
    torch.manual_seed(seed)
    return Network(**options)


def nonlinear() -> Network:
    torch.manual_seed(0)
    return Network(
        classifier=nn.Sequential(
            nn.Hardswish(inplace=True), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 1)
        )
    )


def images(count: int = 2, height: int = 16, width: int = 24, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dropped", [None, 0, 4])
def test_shapes_and_the_dropped_class(dropped: int | None):
    out = DropClass(network())(images(), dropped=dropped)
    assert out.logits.shape == (2, 5, 16, 24)
    assert out.drop_logits.shape == (2, 5, 4, 6)
    assert out.dropped == dropped
    assert out.align_corners is False
    assert out.output is out.logits


def test_the_branch_is_gate_block_and_the_same_classifier():
    method = DropClass(network()).eval()
    method.branch.norm.running_mean.normal_()
    with torch.no_grad():
        features = method.model.body(images())
        block = method.branch.conv(drop_features(features, method.model.classifier.weight, 2))
        norm = method.branch.norm
        block = (block - norm.running_mean.view(-1, 1, 1)) / torch.sqrt(norm.running_var.view(-1, 1, 1) + norm.eps)
        block = torch.relu(block * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1))
        expected = method.model.classifier(block)
        # BatchNorm written out rounds differently in float32.
        torch.testing.assert_close(method(images(), dropped=2).drop_logits, expected, rtol=1e-5, atol=1e-6)


def test_the_models_own_output_is_handed_through():
    model = network()
    inner = model.forward
    model.forward = lambda x: {"out": inner(x), "aux": 1}
    out = DropClass(model)(images())
    assert out.output["aux"] == 1
    assert out.logits is out.output["out"]


def test_an_output_object_with_logits():
    model = network()
    inner = model.forward
    model.forward = lambda x: SimpleNamespace(logits=inner(x))
    assert DropClass(model)(images()).logits.shape == (2, 5, 16, 24)


def test_a_model_that_is_itself_the_convolution():
    model = nn.Conv2d(3, 5, 1)
    method = DropClass(model)
    out = method(images(), dropped=1)
    assert (out.logits.shape, out.drop_logits.shape) == ((2, 5, 16, 24), (2, 5, 16, 24))
    assert method.head is model


def test_wrapping_does_not_move_the_global_random_stream_of_the_probe():
    torch.manual_seed(5)
    DropClass(network())
    first = torch.rand(3)
    torch.manual_seed(0)
    Network()
    # Only the branch's own initialisation draws: a 1×1 convolution and a BatchNorm of 8 channels.
    nn.Conv2d(8, 8, 1)
    assert torch.equal(torch.rand(3), first)


def test_a_model_that_skips_its_classifier_in_training_is_refused():
    class Fickle(Network):
        def forward(self, images: Tensor) -> Tensor:
            return self.body(images)[:, :5] if self.training else super().forward(images)

    torch.manual_seed(0)
    method = DropClass(Fickle()).train()
    with pytest.raises(ModelError, match="the classifier 'classifier' ran 0 times in one pass; expected once"):
        method(images())


def test_the_branch_has_the_models_dtype():
    method = DropClass(network().double())
    assert method(images().double(), 1).drop_logits.dtype == torch.float64


def test_every_parameter_gets_a_gradient_from_the_branch():
    method = DropClass(network()).train()
    method(images(), dropped=1).drop_logits.square().sum().backward()
    # Dropping class 1 leaves its bias in the branch's own logits.
    assert all(parameter.grad is not None for parameter in method.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in method.parameters())


def gradient_of_the_gate(detach: bool) -> Tensor:
    """Gradient of the drop logits of class 0 with respect to the classifier's row of class 3."""
    method = DropClass(network(), detach_importance=detach).eval()
    method(images(), dropped=1).drop_logits[:, 0].sum().backward()
    return method.model.classifier.weight.grad[3]


def test_gradient_flows_into_the_weight_through_the_importance_unless_detached():
    # Row 3 does not make the logits of class 0: all that reaches it comes through S.
    assert gradient_of_the_gate(detach=False).abs().sum() > 0
    assert gradient_of_the_gate(detach=True).abs().sum() == 0


def test_the_divisor_scales_what_enters_the_branch():
    entered = {}
    for divisor in ("kept", "all"):
        method = DropClass(network(), divisor=divisor).eval()
        method.branch.conv.register_forward_pre_hook(lambda m, inputs, d=divisor: entered.update({d: inputs[1]}))
        method(images(), dropped=1)
    # (sum / 4) · 4/5 against sum / 5: one float32 rounding each.
    torch.testing.assert_close(entered["kept"] * 4 / 5, entered["all"], rtol=1e-6, atol=0)


def test_the_whole_batch_drops_one_class():
    method = DropClass(network()).eval()
    batch = images(3)
    together = method(batch, "sample", progress=1.0, generator=torch.Generator().manual_seed(3))
    assert type(together.dropped) is int
    alone = torch.cat([method(image[None], dropped=together.dropped).drop_logits for image in batch])
    # Convolutions of another batch size may round differently.
    torch.testing.assert_close(together.drop_logits, alone, rtol=1e-5, atol=1e-6)


def test_sample_with_equal_seeds_gives_equal_classes():
    method = DropClass(network()).eval()
    draws = [
        [method(images(1, 4, 4), "sample", progress=0.7, generator=generator).dropped for _ in range(20)]
        for generator in (torch.Generator().manual_seed(9), torch.Generator().manual_seed(9))
    ]
    assert draws[0] == draws[1]
    assert len(set(draws[0])) > 2


def test_sample_never_drops_at_progress_0_and_always_at_1():
    method = DropClass(network()).eval()
    generator = torch.Generator().manual_seed(0)
    never = {method(images(1, 4, 4), "sample", progress=0.0, generator=generator).dropped for _ in range(20)}
    always = {method(images(1, 4, 4), "sample", progress=1.0, generator=generator).dropped for _ in range(20)}
    assert never == {None}
    assert None not in always


def test_sample_respects_the_maximal_probability():
    method = DropClass(network(), max_drop_probability=0.0).eval()
    generator = torch.Generator().manual_seed(0)
    assert all(method(images(1, 4, 4), "sample", progress=1.0, generator=generator).dropped is None for _ in range(10))


def test_sample_among_labels_draws_only_their_classes():
    method = DropClass(network()).eval()
    generator, labels = torch.Generator().manual_seed(0), torch.tensor([[[1, 255], [4, 4]]])
    drawn = {
        method(images(1, 4, 4), "sample", progress=1.0, generator=generator, among=labels).dropped for _ in range(30)
    }
    assert drawn == {1, 4}


def test_sample_does_not_touch_the_global_stream():
    method = DropClass(network()).eval()
    before = torch.get_rng_state()
    method(images(1, 4, 4), "sample", progress=1.0, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "options", [{}, {"progress": 0.5}, {"generator": torch.Generator()}], ids=["neither", "no generator", "no progress"]
)
def test_sample_without_progress_or_generator_is_refused(options: dict):
    with pytest.raises(ModelError, match=r'"sample" with progress=… and generator=…'):
        DropClass(network())(images(), "sample", **options)


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_sample_with_a_progress_outside_0_to_1_is_refused(progress: float):
    with pytest.raises(UserError, match=r"the training progress is .*from 0 to 1"):
        DropClass(network())(images(), "sample", progress=progress, generator=torch.Generator())


@pytest.mark.parametrize("dropped", [np.int64(1), np.uint8(1), torch.tensor(1)], ids=["int64", "uint8", "tensor"])
def test_every_integer_type_names_a_class_and_comes_back_as_a_plain_one(dropped: object):
    method = DropClass(network()).eval()
    out = method(images(), dropped)  # type: ignore[arg-type]
    assert type(out.dropped) is int
    assert torch.equal(out.drop_logits, method(images(), 1).drop_logits)


@pytest.mark.parametrize("dropped", [-1, 5, 255, np.int64(5), "all", True, np.bool_(True), 1.5, np.float32(1)])
def test_a_dropped_class_that_does_not_exist_is_refused(dropped: object):
    with pytest.raises(ModelError, match=r"dropped (class )?is"):
        DropClass(network())(images(), dropped)  # type: ignore[arg-type]


def test_options_out_of_range_are_refused():
    with pytest.raises(ModelError, match=r"max_drop_probability is 1.5; expected 0 … 1"):
        DropClass(network(), max_drop_probability=1.5)
    with pytest.raises(ModelError, match="divisor is 'mean'"):
        DropClass(network(), divisor="mean")  # type: ignore[arg-type]


def test_a_named_nonlinear_head_sees_the_features_as_they_came():
    # The head's first module works in place; the importance must be that of the features before it.
    method = DropClass(nonlinear(), "classifier").eval()
    with torch.no_grad():
        features = method.model.body(images())
    leaf = features.clone().requires_grad_()
    logits = method.model.classifier(leaf.clone())
    total = torch.zeros_like(features)
    for c in (0, 1, 3, 4):
        (importance,) = torch.autograd.grad(logits[:, c].sum(), leaf, retain_graph=True)
        total = total + torch.relu(features * importance)
    with torch.no_grad():
        expected = method.model.classifier(method.branch(total / 4))
    # The batched backward pass sums in another order in float32.
    torch.testing.assert_close(method(images(), dropped=2).drop_logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [network, nonlinear])
def test_a_training_step_runs_under_bfloat16_autocast(build):
    method = DropClass(build(), "classifier").train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = method(images(), dropped=1)
    out.drop_logits.float().square().sum().backward()
    gradients = [parameter.grad for parameter in method.branch.parameters()]
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_evaluation_without_gradients():
    method = DropClass(network()).eval()
    with torch.inference_mode():
        assert method(images()).drop_logits.requires_grad is False


def test_optimizers_see_the_branch_before_the_first_pass():
    method = DropClass(network())
    names = {name.split(".")[0] for name, _ in method.named_parameters()}
    assert names == {"model", "branch"}
    assert [tuple(p.shape) for p in method.branch.parameters()] == [(8, 8, 1, 1), (8,), (8,), (8,)]


def test_a_dropclass_inside_a_dropclass_is_refused():
    with pytest.raises(ModelError, match="runs 2 times in one pass"):
        DropClass(DropClass(network()))


def test_a_model_without_parameters():
    method = DropClass(nn.Sequential(nn.Identity()), "0").eval()
    assert method(images(), 1).drop_logits.shape == (2, 3, 16, 24)
