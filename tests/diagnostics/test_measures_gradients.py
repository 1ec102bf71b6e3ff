import pytest
import torch
from helpers.measures import MEASURES, SEEDS, close, moments, plain_alpha, spectra, tensor
from helpers.reference import normal, seeded
from hypothesis import given, settings

from dyncollapse.diagnostics.lidar import lidar
from dyncollapse.diagnostics.measures import (
    effective_rank,
    participation_ratio,
    participation_ratio_unbiased,
    rankme,
    rankme_from_eigenvalues,
    stable_rank,
)

# --- Gradients: they carry error bars


@given(spectra(least=2))
@settings(max_examples=50, deadline=None)
@pytest.mark.parametrize("measure", MEASURES)
def test_gradient_is_finite_at_zeros_and_blind_to_scale(measure, spectrum):
    spectrum = spectrum.clone().requires_grad_()
    (slope,) = torch.autograd.grad(measure(spectrum), spectrum)
    assert slope.isfinite().all()
    # Euler: a measure of degree 0 does not change along the spectrum itself.
    terms = slope * spectrum.detach()
    assert abs(float(terms.sum())) <= 1e-10 * (1 + float(terms.abs().sum()))


@pytest.mark.parametrize("measure", [effective_rank, rankme_from_eigenvalues, plain_alpha])
def test_zeros_have_no_gradient_where_it_would_be_infinite(measure):
    full = tensor(3, 0, 2, 0.5, 0).requires_grad_()
    bare = tensor(3, 2, 0.5).requires_grad_()
    (with_zeros,) = torch.autograd.grad(measure(full), full)
    (without,) = torch.autograd.grad(measure(bare), bare)
    close(with_zeros[[0, 2, 3]], without)
    assert with_zeros[[1, 4]].tolist() == [0, 0]


def test_participation_ratio_has_its_true_gradient_at_zero():
    spectrum = tensor(3, 0, 1).requires_grad_()
    (slope,) = torch.autograd.grad(participation_ratio(spectrum), spectrum)
    close(slope, [2 * 4 / 10 - 2 * 16 * value / 100 for value in (3, 0, 1)])


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("seed", SEEDS)
def test_gradient_equals_finite_differences(measure, seed):
    spectrum = (normal(seeded(seed), 6).abs() + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(measure, spectrum)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_of_matrices_equal_finite_differences(seed):
    z, views = normal(seeded(seed), 7, 3).requires_grad_(), normal(seeded(seed), 3, 5, 2).requires_grad_()
    for measure, at in ((rankme, z), (stable_rank, z), (lidar, views)):
        assert torch.autograd.gradcheck(measure, at)
    spectrum, fourth = moments(z.detach())
    assert torch.autograd.gradcheck(
        lambda eigenvalues, moment: participation_ratio_unbiased(eigenvalues, 7, moment),
        (spectrum.requires_grad_(), fourth.requires_grad_()),
    )


def test_gradient_of_rankme_is_finite_for_dead_dimensions(generator):
    z = torch.cat([normal(generator, 9, 3), torch.zeros(9, 2, dtype=torch.float64)], dim=1).requires_grad_()
    (slope,) = torch.autograd.grad(rankme(z), z)
    assert slope.isfinite().all()
