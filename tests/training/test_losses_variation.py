"""Spread of dropout passes, BLV's noise and logit adjustment against formulas written out."""

import math
import statistics

import pytest
import torch
from scipy import stats
from torch import Tensor

from dropclass_deploy.core.errors import DataError, UserError
from dropclass_deploy.training.losses import balanced_variation, cross_entropy, logit_shift, uncertainty_loss


def some_maps(passes: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(passes, 2, 4, 3, 5, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def some_background() -> Tensor:
    return torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(1))


def literal_spread(maps: Tensor, background: Tensor | None) -> float:
    terms = []
    for n, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(5)).tolist():
        spread = statistics.mean(statistics.variance(maps[:, n, c, y, x].tolist()) for c in range(4))
        terms.append(spread * (1 - (0.0 if background is None else float(background[n, y, x]))))
    return statistics.mean(terms)


@pytest.mark.parametrize("background", [None, some_background()], ids=["", "background"])
@pytest.mark.parametrize("passes", [2, 3, 7])
def test_uncertainty_is_the_mean_of_variances(passes: int, background: Tensor | None):
    result = uncertainty_loss(some_maps(passes), background)
    # Float32 against Python's fractions.
    assert result.item() == pytest.approx(literal_spread(some_maps(passes), background), rel=1e-6)


def test_uncertainty_worked_by_hand():
    # Two passes that differ by 2 in one of two channels: variance 2 (unbiased) and 0, mean 1; background 3/4: 1/4.
    maps = torch.zeros(2, 1, 2, 1, 1)
    maps[0, 0, 0] = 2.0
    assert uncertainty_loss(maps).item() == 1.0
    assert uncertainty_loss(maps, torch.full((1, 1, 1), 0.75)).item() == 0.25


def test_uncertainty_gradient():
    background = some_background().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: uncertainty_loss(maps, background), some_maps(dtype=torch.float64))
    assert torch.autograd.grad(uncertainty_loss(some_maps(), background), background, allow_unused=True) == (None,)


def test_passes_that_agree_have_no_loss_and_no_gradient():
    maps = some_maps(1).detach().expand(3, -1, -1, -1, -1).clone().requires_grad_()
    loss = uncertainty_loss(maps)
    # The mean of three equal float32 numbers may be a rounding away from them.
    assert loss.item() < 1e-12
    assert torch.autograd.grad(loss, maps)[0].abs().max() < 1e-8


def test_uncertainty_of_an_empty_batch_is_zero():
    assert uncertainty_loss(torch.zeros(2, 0, 4, 3, 5)).item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_uncertainty_is_computed_in_float32(dtype: torch.dtype):
    half = some_maps(dtype=dtype)
    with torch.autocast("cpu", dtype=dtype):
        loss = uncertainty_loss(half, some_background())
    assert loss.dtype == torch.float32
    assert torch.equal(loss, uncertainty_loss(half.float(), some_background()))
    assert torch.autograd.grad(loss, half)[0].isfinite().all()


def test_maps_that_cannot_be_are_refused():
    with pytest.raises(
        DataError, match=r"maps have shape \(1, 2, 4, 3, 5\); expected \(P, N, C, h, w\) with two passes"
    ):
        uncertainty_loss(some_maps(1))
    with pytest.raises(DataError, match=r"maps have shape \(2, 4, 3, 5\)"):
        uncertainty_loss(some_maps()[0])
    with pytest.raises(DataError, match=r"background has shape \(2, 4, 3, 5\); expected \(2, 3, 5\), as the maps"):
        uncertainty_loss(some_maps(), some_maps()[0])


F_TERMS = torch.tensor([math.log(10), math.log(10 / 8), math.log(10), math.log(100)])


def noise(seed: int = 0, sigma: float = 0.5, **options) -> Tensor:
    logits = options.pop("logits", torch.zeros(3, 4, 40, 50))
    terms = options.pop("terms", F_TERMS)
    return balanced_variation(logits, terms, sigma=sigma, generator=torch.Generator().manual_seed(seed), **options)


def test_noise_is_the_formula():
    given = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(5))
    drawn = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(9))
    expected = given.clone()
    for c in range(4):
        expected[:, c] += (0.7 * drawn[:, c]).clamp(-1, 1).abs() * float(F_TERMS[c]) / math.log(100)
    # A product in another order, in float32.
    torch.testing.assert_close(noise(9, 0.7, logits=given), expected, rtol=1e-6, atol=1e-6)


def test_noise_has_the_folded_normals_distribution():
    sigma = 0.5
    drawn = noise(sigma=sigma)
    for c in range(4):
        share = drawn[:, c].flatten() / (F_TERMS[c] / F_TERMS.max())
        assert share.min() >= 0.0
        assert share.max().item() == pytest.approx(1.0, rel=1e-6)  # float32
        # P(|ε| ≥ 1) and, below, a folded normal; 6,000 draws: four standard errors of a share are 0.011.
        assert (share > 0.9999).float().mean().item() == pytest.approx(2 * stats.norm.sf(1 / sigma), abs=0.011)
        assert (share < 0.3).float().mean().item() == pytest.approx(1 - 2 * stats.norm.sf(0.3 / sigma), abs=0.026)


def test_noise_repeats_with_its_generator_and_leaves_torchs_alone():
    state = torch.get_rng_state()
    assert torch.equal(noise(3), noise(3))
    assert not torch.equal(noise(3), noise(4))
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_generator_the_noise_is_torchs():
    torch.manual_seed(3)
    assert torch.equal(balanced_variation(torch.zeros(3, 4, 40, 50), F_TERMS, sigma=0.5), noise(3))


def test_no_sigma_is_no_noise():
    given = some_maps()[0].detach()
    assert torch.equal(noise(sigma=0.0, logits=given), given)


def test_the_gradient_goes_through_as_it_is():
    given = some_maps()[0].detach().requires_grad_()
    slope = torch.randn_like(given)
    assert torch.equal(torch.autograd.grad(noise(logits=given), given, slope)[0], slope)


def test_a_class_that_never_occurs_has_the_noise_of_the_rarest():
    terms = torch.tensor([math.inf, 0.1, math.log(100), 2.0])
    drawn = noise(terms=terms)
    assert drawn.isfinite().all()
    assert torch.equal(drawn, noise(terms=torch.tensor([math.log(100), 0.1, math.log(100), 2.0])))


@pytest.mark.parametrize("terms", [torch.zeros(4), torch.full((4,), math.inf)], ids=["a single class", "none occurs"])
def test_terms_of_nothing_give_finite_logits(terms: Tensor):
    assert noise(terms=terms).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_noise_is_added_in_float32_or_float64(dtype: torch.dtype):
    given = some_maps(dtype=dtype)[0]
    result = noise(logits=given, terms=F_TERMS.double())
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert (result >= given).all()


def test_noise_that_cannot_be_is_refused():
    with pytest.raises(DataError, match=r"log_inverse_frequency has shape \(3,\); expected \(4,\), one number a class"):
        noise(terms=F_TERMS[:3])
    for sigma in (-1.0, math.inf, math.nan):
        with pytest.raises(UserError, match=r"sigma is .*; expected a number from 0 on"):
            noise(sigma=sigma)


@pytest.mark.parametrize("tau", [0.0, 1.0, 2.5, -1.0])
def test_shift_is_tau_times_the_logarithm_of_shares(tau: float):
    expected = [tau * math.log(share) for share in (0.7, 0.2, 0.1)]
    for frequency in (torch.tensor([700, 200, 100]), torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)):
        shift = logit_shift(frequency, tau)
        assert shift.dtype == torch.float32
        assert shift.tolist() == pytest.approx(expected, rel=1e-6)  # float32


def test_a_class_that_never_occurs_is_shifted_as_the_rarest():
    assert torch.equal(
        logit_shift(torch.tensor([0, 90, 10, 0]), 1.0)[[0, 3]], logit_shift(torch.tensor([90, 10]), 1.0)[[1, 1]]
    )


def test_the_shift_makes_logits_of_the_likelihood_bayes_optimal():
    # Logits log P(x|y) plus log π are those of the posterior: at τ = 1 the loss is −log P(y|x).
    likelihood, prior = torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0.7, 0.2, 0.1])
    logits = likelihood.log() + logit_shift(prior, 1.0)
    posterior = likelihood * prior / (likelihood * prior).sum()
    loss = cross_entropy(logits.view(1, 3, 1, 1), torch.full((1, 1, 1), 1))
    assert loss.item() == pytest.approx(-math.log(posterior[1]), rel=1e-6)  # float32


@pytest.mark.parametrize(
    "frequency", [[0.0, 0.0], [-1.0, 2.0], [math.nan, 1.0], [math.inf, 1.0], [], [[1.0, 2.0]]], ids=str
)
def test_frequencies_that_cannot_be_are_refused(frequency: list[float]):
    with pytest.raises(
        DataError, match=r"the class frequencies are \[.*\]; expected \(C,\) numbers from 0 on, one of them"
    ):
        logit_shift(torch.tensor(frequency), 1.0)


def test_a_tau_that_is_not_finite_is_refused():
    with pytest.raises(UserError, match="tau is nan; expected a finite number"):
        logit_shift(torch.ones(2), math.nan)
