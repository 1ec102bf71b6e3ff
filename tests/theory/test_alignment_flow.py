import itertools
import math

import pytest
import torch
from helpers.alignment import distinct_task
from helpers.flow import moved
from helpers.reference import EPS, VIEWS
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline

from dyncollapse import (
    GaussianTask,
    alignment_matrix,
    alignment_report,
    balanced_init,
    block_alignment,
    contrastive_covariance,
    frozen_flow,
    gaussian_init,
    imbalance,
    infonce_weights,
    isotropic_rest_layers,
    mode_flow,
    population_flow,
    rest_singular_values,
    sample_flow,
    singular_values,
)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_theorem_3_is_exact_from_an_aligned_start_under_a_frozen_force(depth, generator):
    weights = balanced_init([4] * (depth + 1), generator, scale=0.8)
    frame = torch.linalg.svd(weights[0]).Vh.T
    x, times = torch.tensor([0.5, 0.2, -0.1, -0.6], dtype=torch.float64), [0.0, 0.5, 1.0]
    full = frozen_flow(weights, frame * x @ frame.T, times, rtol=1e-10)
    modes = mode_flow([torch.linalg.svdvals(w) for w in weights], x, times, rtol=1e-10)
    assert moved(full) > 0.1
    for layer, values in zip(full.weights, modes.weights, strict=True):
        expected = values.diagonal(dim1=-2, dim2=-1).sort(descending=True).values
        torch.testing.assert_close(torch.linalg.svdvals(layer), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("depth", [2, 3])
def test_theorem_3_is_exact_along_a_sample_flow_from_a_balanced_start(depth, views, generator):
    weights = balanced_init([3] * (depth + 1), generator, scale=0.9, rate=0.5)
    pairs = GaussianTask.block(3, 1, 0.7, views=views).sample(12, generator)
    times = torch.linspace(0, 2, 401, dtype=torch.float64)
    full = sample_flow(weights, pairs, times, rtol=1e-10)
    anchor, positive = (x.expand(len(times), -1, -1) for x in (pairs.anchor, pairs.positive))
    negatives = None if views == "one-sided" else positive
    z, z_pos = anchor @ full.product.mT, positive @ full.product.mT
    alpha = infonce_weights(z, z_pos, None if views == "one-sided" else z_pos)
    force = contrastive_covariance(anchor, positive, alpha, negatives).force
    vh = torch.linalg.svd(full.weights[0]).Vh
    x = CubicSpline(times.numpy(), ((vh @ force) * vh).sum(-1).numpy())
    values = [torch.linalg.svdvals(w) for w in full.weights]
    # Vectors are followed by rank, so no two modes may cross; the spline errs by (2 / 400)^4, below 1e-8.
    assert float((values[0][:, :-1] - values[0][:, 1:]).min()) > 1e-2
    modes = mode_flow([v[0] for v in values], lambda t: torch.from_numpy(x(t)), [0.0, 1.0, 2.0], rtol=1e-10)
    assert moved(full) > 0.1
    for expected, got in zip(values, modes.weights, strict=True):
        at = expected[[0, 200, 400]]
        torch.testing.assert_close(got.diagonal(dim1=-2, dim2=-1), at, rtol=0, atol=1e-6)


@pytest.mark.parametrize("lam", [0.8, -0.8])
@pytest.mark.parametrize("depth", [2, 3])
def test_layers_with_c_a_multiple_of_the_identity_stay_aligned(depth, lam, generator):
    weights = balanced_init([4] * (depth + 1), generator, scale=0.6, imbalance=lam)
    task, times = distinct_task(), [0.0, 0.3, 1.0, 3.0]
    for path in (population_flow(weights, task, times), sample_flow(weights, task.sample(12, generator), times)):
        assert moved(path) > 0.5
        for w1, w2 in itertools.pairwise(path.weights):
            for i in range(len(times)):
                # The solver's relative error of 1e-8 turns a frame by 1e-6 at most; alignment feels the square.
                assert block_alignment(w1[i], w2[i]) == pytest.approx(1, abs=1e-12)
    # The control: from a start of no particular C the same flow does not keep what alignment there is.
    path = population_flow(gaussian_init([4] * (depth + 1), generator, scale=0.6), task, times)
    assert all(block_alignment(path.weights[0][i], path.weights[1][i]) < 0.99 for i in range(len(times)))


def test_isotropic_data_align_layers_in_opposite_order(generator):
    weights, task = gaussian_init([4] * 3, generator, scale=0.3), GaussianTask.block(4, 4, 0.6, data_var=1.0)
    # Distances to rest fall like exp(-t); what remains at the end is the solver's error, 1e-11 per unit of weight.
    w1, w2 = population_flow(weights, task, 1000.0, rtol=1e-11).final()
    anti = torch.eye(4, dtype=torch.float64).flip(0)
    torch.testing.assert_close(alignment_matrix(w1, w2).abs(), anti, rtol=0, atol=1e-8)
    c = torch.linalg.eigvalsh(imbalance(*weights)).flip(-1)
    s1, s2 = isotropic_rest_layers(c, float(rest_singular_values(task)[0]))
    torch.testing.assert_close(singular_values(w1), s1, rtol=0, atol=1e-8)
    torch.testing.assert_close(singular_values(w2), s2.flip(-1), rtol=0, atol=1e-8)
    report = alignment_report(w1, w2)
    assert (report.pattern, report.permutation) == ("anti-aligned", [3, 2, 1, 0])
    assert not report.certified
    assert report.bounds.isinf().all()


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), st.floats(1e-3, 1e3))
def test_rest_layers_have_their_product_and_their_imbalance(spectrum, p):
    c = torch.tensor(spectrum, dtype=torch.float64)
    s1, s2 = isotropic_rest_layers(c, p)
    torch.testing.assert_close(s1 * s2, torch.full_like(c, p), rtol=10 * EPS, atol=0)
    torch.testing.assert_close(s1.square() - s2.square(), c, rtol=10 * EPS, atol=10 * EPS * p)
    assert (s1 > 0).all()
    assert (s2 > 0).all()


def test_rest_layers_at_the_edges():
    c = torch.tensor([4.0, 0.0, -9.0], dtype=torch.float64)
    s1, s2 = isotropic_rest_layers(c, 0.0)
    assert (s1.tolist(), s2.tolist()) == ([2, 0, 0], [0, 0, 3])
    # 1e8 against 1e-8: the smaller value keeps all its digits.
    s1, s2 = isotropic_rest_layers(torch.tensor([1e8], dtype=torch.float64), 1e-8)
    assert float(s2) == pytest.approx(1e-12, rel=10 * EPS)
    for value in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="it is a singular value, finite and at least 0"):
            isotropic_rest_layers(c, value)
