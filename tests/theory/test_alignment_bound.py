import math

import pytest
import torch
from helpers.alignment import distinct_task
from helpers.reference import EPS, normal, rotation
from hypothesis import given
from hypothesis import strategies as st

from dyncollapse import alignment_bound, alignment_report, gaussian_init, imbalance, population_flow, singular_values


def planted(generator, widths, noise):
    """Two layers that share a frame and the singular values 4, 3, ... up to noise: C is as small as the noise."""
    d, h, m = widths
    q = [rotation(generator, width) for width in widths]
    k = min(widths)
    s = torch.arange(k, 0, -1, dtype=torch.float64)
    w1, w2 = q[1][:, :k] * s @ q[0][:, :k].T, q[2][:, :k] * s @ q[1][:, :k].T
    return w1 + noise * normal(generator, h, d), w2 + noise * normal(generator, m, h)


@given(
    st.lists(st.integers(1, 6), min_size=3, max_size=3),
    st.floats(-6, 1),
    st.floats(0, 10),
    st.integers(0, 2**31),
)
def test_bound_holds_for_any_layers(widths, exponent, lam, seed):
    generator = torch.Generator().manual_seed(seed)
    w1, w2 = planted(generator, widths, 10**exponent)
    if min(widths[0], widths[2]) >= widths[1]:  # then C can be shifted by a multiple of the identity
        u1, s1, v1h = torch.linalg.svd(w1, full_matrices=False)
        w1 = u1 * torch.sqrt(s1.square() + lam) @ v1h
    report = alignment_report(w1, w2)
    # Round-off: eps of the squared sizes over the separation, which is C's spread over the bound.
    spread = float(report.imbalance_spectrum[0] - report.imbalance_spectrum[-1]) / 2
    size = float(w1.norm() ** 2 + w2.norm() ** 2)
    slack = 100 * EPS * size / max(spread, EPS * size) * report.bounds + 100 * EPS
    assert (report.sines <= report.bounds + slack).all()
    assert (report.sines <= 1 + 1e3 * EPS).all()
    assert 0 <= report.alignment <= 1 + 1e3 * EPS
    assert sorted(report.permutation) == list(range(widths[1]))


@given(st.lists(st.integers(1, 6), min_size=3, max_size=3), st.floats(-2, 2), st.integers(0, 2**31))
def test_eigenvalues_of_both_gram_matrices_follow_from_p_and_c(widths, exponent, seed):
    # The lemma under the bound: |h_k - q_k| <= gamma / 2 for W1 W1^T and W2^T W2, at any widths.
    generator, (d, h, m) = torch.Generator().manual_seed(seed), widths
    w1, w2 = normal(generator, h, d), normal(generator, m, h) * 10**exponent
    gamma = torch.linalg.matrix_norm(imbalance(w1, w2), ord=2)
    p = torch.zeros(h, dtype=torch.float64)
    values = singular_values(w2 @ w1)[:h]
    p[: len(values)] = values
    q = torch.sqrt(p.square() + gamma**2 / 4)
    for gram in (w1 @ w1.T, w2.T @ w2):
        eigenvalues = torch.linalg.eigvalsh(gram).flip(-1)
        assert ((eigenvalues - q).abs() <= gamma / 2 + 100 * EPS * (gamma + q[0])).all()


@pytest.mark.parametrize("widths", [(4, 4, 4), (5, 4, 6), (3, 5, 4)])
def test_bound_shrinks_with_the_imbalance_and_says_something(widths, generator):
    w1, w2 = planted(generator, widths, 1e-3)
    report = alignment_report(w1, w2)
    assert report.certified
    assert report.pattern == "aligned"
    assert float(report.bounds.max()) < 0.5
    assert (report.sines <= report.bounds).all()
    # Not too generous either: at most 12 times the angle in 300 draws, 4 in the median.
    assert float(report.sines.max()) > float(report.bounds.max()) / 30


@pytest.mark.parametrize(("scale", "certified"), [(0.1, True), (0.5, False)])
def test_bound_holds_along_the_flow_from_a_gaussian_start(scale, certified, generator):
    path = population_flow(gaussian_init([4] * 3, generator, scale=scale), distinct_task(), [0.0, 10.0, 40.0, 160.0])
    reports = [alignment_report(w1, w2) for w1, w2 in zip(*path.weights, strict=True)]
    assert all((report.sines <= report.bounds).all() for report in reports)
    assert not reports[0].certified
    assert reports[-1].certified == certified
    if certified:
        assert float(reports[-1].bounds.max()) < 1
        assert float(reports[-1].bounds.min()) < 0.5
        assert reports[-1].pattern == "aligned"
    # P's last values and C at the start predict what the last layers' angles can be.
    c = torch.linalg.eigvalsh(imbalance(*(w[0] for w in path.weights)))
    predicted = alignment_bound(path.singular_values[-1], c, reports[-1].blocks)
    torch.testing.assert_close(predicted, reports[-1].bounds, rtol=1e-5, atol=0)


def test_bound_is_davis_kahan_on_numbers_known_in_advance():
    p, c = torch.tensor([3.0, 2.0], dtype=torch.float64), torch.tensor([0.6, -0.2], dtype=torch.float64)
    q = [math.sqrt(v**2 + 0.3**2) for v in (3, 2)]
    expected = 0.4 / (q[0] - q[1] - 0.4)
    torch.testing.assert_close(alignment_bound(p, c), torch.full((2,), expected, dtype=torch.float64))
    # The other way round the imbalance is as large and its spread too.
    torch.testing.assert_close(alignment_bound(p, -c), alignment_bound(p, c))
    stacked = alignment_bound(torch.stack([p, 2 * p]), torch.stack([c, 2 * c]))
    torch.testing.assert_close(stacked, torch.full((2, 2), expected, dtype=torch.float64))


def test_bound_is_zero_or_infinite_in_the_limits():
    p, none = torch.tensor([3.0, 2.0, 2.0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for c in (none, none + 5.0, none - 5.0):
        # C = lambda I moves no frame; two equal values have none.
        assert alignment_bound(p, c).tolist() == [0, math.inf, math.inf]
        assert alignment_bound(p, c, [[0], [1, 2]]).tolist() == [0, 0]
    tilted = torch.tensor([0.1, 0.0, -0.1], dtype=torch.float64)
    assert alignment_bound(p, tilted)[1:].isinf().all()
    assert alignment_bound(p, 20 * tilted).isinf().all()
    assert alignment_bound(0 * p, none).isinf().all()
    assert alignment_bound(p, tilted, [[0, 1, 2]]).tolist() == [0]
    # A wider hidden layer: two missing values are zeros of P, one block.
    wide = alignment_bound(p[:1], torch.tensor([0.1, 0.0, -0.1], dtype=torch.float64), [[0], [1, 2]])
    torch.testing.assert_close(wide, torch.full((2,), 0.1 / (math.sqrt(9 + 0.05**2 * 4 / 4) - 0.05 - 0.1)).double())
    for blocks in ([[0], [2, 1]], [[0], [1]], [[0], [], [1, 2]]):
        with pytest.raises(ValueError, match=r"blocks are .* they must cut 0, ..., 2 into runs, in order"):
            alignment_bound(p, none, blocks)
