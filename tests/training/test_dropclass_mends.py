"""Other ways for a class to leave the last features, and agreement between the two paths: against their definitions."""

import pytest
import torch
import torch.nn.functional as F
from small_network import SmallNetwork
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.training import DropClass
from dropclass_deploy.training.dropclass.mends import channels_left, disagreement, without_direction
from dropclass_deploy.training.methods import DropClassMethod, StepContext
from dropclass_deploy.training.recipe import MethodSection

C, Z = 4, 2
LABELS = torch.randint(0, C, (2, 6, 5), generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(2))


def method_with(**options: object) -> DropClassMethod:
    section = MethodSection.model_validate({"name": "dropclass", **options})
    return DropClassMethod(SmallNetwork(C), section, "head")


def context(progress: float = 0.5, dropped: int | None = Z) -> StepContext:
    return StepContext(0, progress, 0, 255, None, dropped=dropped)


@pytest.mark.parametrize("bias", [True, False])
def test_erasing_at_the_logits_is_erasing_in_the_features(bias: bool):
    torch.manual_seed(0)
    head = nn.Conv2d(6, C, 1, bias=bias).double()
    features = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    w = head.weight[Z].flatten()
    along = torch.einsum("nkhw,k->nhw", features, w) / (w @ w)
    erased = features - along[:, None] * w.view(1, -1, 1, 1)
    torch.testing.assert_close(without_direction(head(features), head.weight, head.bias, Z), head(erased))
    assert without_direction(head(features), head.weight, head.bias, None).equal(head(features))


def test_what_is_left_of_a_channel():
    weight = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 2.0, 0.0], [2.0, 6.0, 0.0]])[:, :, None, None]
    torch.testing.assert_close(channels_left(weight, 2), torch.tensor([0.5, 0.25, 1.0]))
    assert channels_left(weight, None).tolist() == [1, 1, 1]


def test_disagreement_is_the_mean_of_both_divergences_over_the_kept_classes():
    torch.manual_seed(0)
    plain, branch = torch.randn(2, C, 4, 4), torch.randn(2, C, 4, 4)
    kept = [0, 1, 3]
    p, q = (logits[:, kept].permute(0, 2, 3, 1).flatten(0, 2).log_softmax(1) for logits in (plain, branch))
    both = F.kl_div(q, p, reduction="batchmean", log_target=True) + F.kl_div(
        p, q, reduction="batchmean", log_target=True
    )
    torch.testing.assert_close(disagreement(plain, branch, Z, None), both / 2)
    assert disagreement(plain, plain.clone(), Z, None) == 0
    large = F.interpolate(branch, (8, 8), mode="bilinear", align_corners=True)
    assert disagreement(large, branch, None, True) == 0


@pytest.mark.parametrize(
    "options", [{"drop": "channels"}, {"drop": "direction"}, {"importance": "average"}, {"branch_classifier": "own"}]
)
def test_a_mended_drop_trains_and_leaves_the_plain_head_alone(options: dict[str, str]):
    method = method_with(**options)
    assert not method.foldable
    assert list(method.deploy_heads()) == ["plain"]
    method.module.train()
    loss = method.loss(IMAGES, LABELS, context())
    loss.total.backward()
    learning = [parameter for parameter in method.module.parameters() if parameter.requires_grad]
    unused = {id(p) for p in method.model.aux.parameters()}
    assert all(parameter.grad is not None for parameter in learning if id(parameter) not in unused)
    paper = method_with()
    paper.module.train()
    expected = paper.loss(IMAGES, LABELS, context()).terms
    torch.testing.assert_close(loss.terms["ce"], expected["ce"])
    # The average and the own classifier begin where the network's classifier does.
    assert loss.terms["ce_drop"].equal(expected["ce_drop"]) == ("drop" not in options)


def test_an_own_classifier_takes_the_branchs_gradient_and_the_network_keeps_its_own():
    method = method_with(branch_classifier="own", detach_importance=True)
    method.module.train()
    method.loss(IMAGES, LABELS, context(progress=1.0)).total.backward()
    assert method.wrapper.branch_head is not None
    assert method.wrapper.branch_head.weight.grad.abs().sum() > 0
    # At the end of training λ is 1: nothing but the branch's classifier is left to learn.
    assert method.wrapper.head.weight.grad.abs().sum() == 0


def test_the_averaged_importance_follows_the_weight_in_training_only():
    method = method_with(importance="average")
    before = method.wrapper.head.weight.detach().clone()
    with torch.no_grad():
        method.wrapper.head.weight += 1
    for training, moved in ((False, 0.0), (True, 0.02), (True, 0.0396)):
        method.module.train(training)
        method.loss(IMAGES, LABELS, context())
        torch.testing.assert_close(method.wrapper.average, before + moved)


def test_consistency_is_a_fourth_term_that_grows_with_training_and_adds_up_over_parts():
    method = method_with(consistency=2.0)
    method.module.eval()
    whole = method.loss(IMAGES, LABELS, context())
    without = method_with(consistency=0.0)
    without.module.eval()
    plain = without.loss(IMAGES, LABELS, context())
    torch.testing.assert_close(whole.total, plain.total + 0.5 * 2.0 * whole.terms["consistency"])
    weights = torch.stack([method.loss_weights(LABELS[i : i + 1], context()) for i in range(2)])
    shares = weights / weights.sum(0)
    parts = [method.loss(IMAGES[i : i + 1], LABELS[i : i + 1], context(), shares[i]) for i in range(2)]
    torch.testing.assert_close(torch.stack([part.total for part in parts]).sum(), whole.total)


class TwoLayerHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 1)
        self.head = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, C, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).relu())


@pytest.mark.parametrize("options", [{"drop": "direction"}, {"average_importance": True}, {"own_classifier": True}])
def test_a_head_that_is_not_linear_is_refused(options: dict[str, object]):
    with pytest.raises(ModelError, match="the head 'head' is not linear"):
        DropClass(TwoLayerHead(), "head", **options)
