"""Template losses against loops over images and classes in float64, and the gradient that is asked of each."""

import itertools
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.training.losses import push_loss, template_loss

C = 5
Similarity = Literal["cosine", "correlation"]
every_similarity = pytest.mark.parametrize("similarity", ["cosine", "correlation"])


def some_logits(dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (1 + 2 * torch.randn(4, C, 4, 6, generator=generator)).to(dtype).requires_grad_()


def some_labels() -> Tensor:
    """Four images: classes 0 … 3 in part, one class alone, nothing, two classes."""
    labels = torch.randint(0, 4, (4, 4, 6), generator=torch.Generator().manual_seed(1))
    labels[:, 0] = 255
    labels[1] = labels[1].clamp(min=2, max=2)
    labels[2] = 255
    labels[3] = labels[3].clamp(max=1)
    return labels


def templates(logits: Tensor, labels: Tensor) -> dict[int, Tensor]:
    """Of one image (C, H, W): the vector of each class's surest pixel."""
    vectors = logits.flatten(1).T
    result = {}
    for c in range(C):
        pixels = (labels.flatten() == c).nonzero()[:, 0].tolist()
        if pixels:
            result[c] = max(
                (vectors[pixel] for pixel in pixels), key=lambda vector, c=c: float(vector.detach().softmax(0)[c])
            )
    return result


def alike(a: Tensor, b: Tensor, similarity: Similarity) -> Tensor:
    return torch.corrcoef(torch.stack([a, b]))[0, 1] if similarity == "correlation" else F.cosine_similarity(a, b, 0)


def literal_pull(logits: Tensor, labels: Tensor, similarity: Similarity) -> Tensor:
    images = []
    for image, truth in zip(logits.double(), labels, strict=True):
        classes = []
        for c, template in templates(image, truth).items():
            pixels = (truth.flatten() == c).nonzero()[:, 0]
            own = [1 - alike(image.flatten(1)[:, pixel], template.detach(), similarity) for pixel in pixels]
            classes.append(sum(own) / len(own))
        if classes:
            images.append(sum(classes) / len(classes))
    return sum(images) / len(images)


def literal_push(logits: Tensor, labels: Tensor, similarity: Similarity) -> Tensor:
    images = []
    for image, truth in zip(logits.double(), labels, strict=True):
        pairs = [
            alike(a, b, similarity).clamp(min=0) for a, b in itertools.combinations(templates(image, truth).values(), 2)
        ]
        if pairs:
            images.append(sum(pairs) / len(pairs))
    return sum(images) / len(images)


LITERAL = {template_loss: literal_pull, push_loss: literal_push}
both = pytest.mark.parametrize("loss", LITERAL)


@both
@every_similarity
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_equals_the_loops_and_their_gradient(loss, similarity: Similarity, dtype: torch.dtype, rtol: float):
    ours, theirs = some_logits(dtype), some_logits(dtype)
    value, expected = loss(ours, some_labels(), similarity=similarity), LITERAL[loss](theirs, some_labels(), similarity)
    # Norms and sums of some dozen numbers in the given type.
    torch.testing.assert_close(value.double(), expected, rtol=rtol, atol=0)
    gradient = torch.autograd.grad(expected, theirs)[0]
    bound = rtol * float(gradient.abs().max())
    torch.testing.assert_close(torch.autograd.grad(value, ours)[0], gradient, rtol=rtol, atol=bound)


@both
def test_cosine_is_the_default(loss):
    assert torch.equal(loss(some_logits(), some_labels()), loss(some_logits(), some_labels(), similarity="cosine"))


def test_the_template_itself_is_not_pulled():
    # Two pixels of a class: the surer one stays where it is, the other turns to it.
    logits = torch.tensor([[4.0, 1.0], [0.0, 1.0]]).view(1, 2, 1, 2).requires_grad_()
    value = template_loss(logits, torch.zeros(1, 1, 2).long())
    assert value.item() == pytest.approx((1 - 0.5**0.5) / 2, rel=1e-6)  # an angle of 45°, one of two pixels; float32
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient[0, :, 0, 0].abs().max() < 1e-7  # rounding of a gradient that is 0
    assert gradient[0, 0, 0, 1] < 0 < gradient[0, 1, 0, 1]


def test_push_moves_the_templates_only():
    logits = some_logits()
    (gradient,) = torch.autograd.grad(push_loss(logits, some_labels()), logits)
    moved = gradient.abs().sum(1).flatten(1).ne(0).sum(1)
    assert moved[0] <= 4  # as many as classes; one whose similarities are all below 0 is not moved
    assert moved[0] >= 2
    assert moved[1:3].tolist() == [0, 0]


def test_push_leaves_templates_apart_that_are():
    logits = torch.tensor([[3.0, -3.0], [-3.0, 3.0]]).view(1, 2, 1, 2).requires_grad_()
    value = push_loss(logits, torch.tensor([[[0, 1]]]))
    assert value.item() == 0.0
    assert torch.autograd.grad(value, logits)[0].eq(0).all()


def test_images_with_fewer_than_two_classes_do_not_thin_the_push():
    alone = push_loss(some_logits()[:1], some_labels()[:1])
    torch.testing.assert_close(push_loss(some_logits()[:3], some_labels()[:3]), alone, rtol=1e-6, atol=0)  # order


def test_only_classes_of_one_image_make_pairs():
    labels = torch.zeros(4, 4, 6).long() + torch.arange(4)[:, None, None]
    assert push_loss(some_logits(), labels).item() == 0.0


def test_correlation_does_not_see_a_shift_and_cosine_does():
    shifted = some_logits().detach() + 10
    for loss in LITERAL:
        expected = loss(some_logits(), some_labels(), similarity="correlation")
        # Ten times the numbers, ten times their rounding.
        torch.testing.assert_close(loss(shifted, some_labels(), similarity="correlation"), expected, rtol=1e-5, atol=0)
        assert abs(loss(shifted, some_labels()) - loss(some_logits(), some_labels())) > 0.01


@both
@every_similarity
def test_vectors_without_a_direction_have_similarity_and_gradient_zero(loss, similarity: Similarity):
    with torch.no_grad():
        logits = some_logits().detach()
        logits[0] = 0.0
        logits[3] = 1e-9
    logits.requires_grad_()
    value = loss(logits, some_labels(), similarity=similarity)
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient[0].eq(0).all()
    assert gradient[3].eq(0).all()
    # Images 0, 1 and 3 count in the pull, two of them with 1 − 0; in the push none is left with a similarity.
    alone = loss(logits[1:2], some_labels()[1:2], similarity=similarity).item()
    expected = 0.0 if loss is push_loss else (2 + alone) / 3
    assert value.item() == pytest.approx(expected, rel=1e-6)  # float32


@both
def test_an_unknown_similarity_is_refused(loss):
    with pytest.raises(UserError, match='similarity is \'dot\'; expected "cosine" or "correlation"'):
        loss(some_logits(), some_labels(), similarity="dot")
