import itertools

import pytest
import torch
from helpers import reference
from helpers.reference import EPS, normal
from hypothesis import given
from hypothesis import strategies as st

from dyncollapse import (
    alignment_matrix,
    balanced_init,
    end_to_end,
    forward,
    gaussian_init,
    imbalance,
    layer_gradients,
    layer_jacobian,
    singular_values,
    spectrum_init,
    uniform_biases,
    uniform_init,
)
from dyncollapse.model.networks import check_weights

INITS = (gaussian_init, uniform_init, spectrum_init, balanced_init, uniform_biases)
WIDTHS = st.lists(st.integers(1, 5), min_size=2, max_size=5)


@given(widths=WIDTHS, seed=st.integers(0, 2**31))
def test_product_is_the_chain_of_layers(widths, seed):
    weights = gaussian_init(widths, torch.Generator().manual_seed(seed), (2,), 1.0)
    slow = torch.stack([reference.chain([w[run] for w in weights], widths[0]) for run in range(2)])
    torch.testing.assert_close(end_to_end(weights), slow, rtol=1e-12, atol=1e-12)


@given(widths=WIDTHS, seed=st.integers(0, 2**31))
def test_layer_gradients_equal_their_definition(widths, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = gaussian_init(widths, generator, (2,), 1.0)
    g = normal(generator, 2, widths[-1], widths[0])
    got = layer_gradients(weights, g)
    for run in range(2):
        slow = reference.layer_gradients([w[run] for w in weights], g[run])
        for fast, expected in zip(got, slow, strict=True):
            torch.testing.assert_close(fast[run], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_layer_gradients_equal_autograd(depth, generator):
    weights = gaussian_init([3, 4, 2, 5, 3][: depth + 1], generator, (2,), 1.0)
    g = normal(generator, 2, weights[-1].shape[-2], 3)
    leaves = [w.clone().requires_grad_() for w in weights]
    slopes = torch.autograd.grad((end_to_end(tuple(leaves)) * g).sum(), leaves)
    for got, expected in zip(layer_gradients(weights, g), slopes, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@given(widths=WIDTHS, seed=st.integers(0, 2**31))
def test_layer_jacobian_equals_autograd(widths, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = gaussian_init(widths, generator, (), 1.0)
    m, d = widths[-1], widths[0]
    # Y = A P B + c P with symmetric A and B is the gradient of tr(P^T A P B) / 2 + c |P|^2 / 2.
    a, b = (root + root.T for root in (normal(generator, m, m), normal(generator, d, d)))
    eye_m, eye_d = (torch.eye(size, dtype=torch.float64) for size in (m, d))
    derivative = torch.einsum("ac,eb->abce", a, b) + 0.7 * torch.einsum("ac,eb->abce", eye_m, eye_d)

    def pulled(p):
        return a @ p @ b + 0.7 * p

    got = layer_jacobian(weights, pulled(end_to_end(weights)), derivative)
    blocks = torch.autograd.functional.jacobian(lambda *w: layer_gradients(w, pulled(end_to_end(w))), weights)
    sizes = [w.numel() for w in weights]
    expected = torch.cat(
        [torch.cat([block.reshape(n, -1) for block in row], 1) for n, row in zip(sizes, blocks, strict=True)]
    )
    # Chains of up to seven products of matrices no larger than 5 x 5.
    size = float(expected.abs().max())
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-13 * size)
    torch.testing.assert_close(got, got.T, rtol=0, atol=1e-13 * size)


@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_forward_sends_every_row_through_the_layers(depth, bias, activation, generator):
    widths = [4, 3, 5, 2][: depth + 1]
    weights = gaussian_init(widths, generator, (), 1.0)
    biases = uniform_biases(widths, generator) if bias else ()
    x = normal(generator, 6, 4)
    slow = reference.forward(weights, x, activation, biases)
    torch.testing.assert_close(forward(weights, x, activation, biases), slow, rtol=1e-12, atol=1e-13)


def test_runs_do_not_mix(generator):
    widths = [4, 3, 2]
    weights, biases = gaussian_init(widths, generator, (3,), 1.0), uniform_biases(widths, generator, (3,))
    x = normal(generator, 3, 5, 4)
    together = forward(weights, x, "relu", biases)
    for run in range(3):
        alone = forward(tuple(w[run] for w in weights), x[run], "relu", tuple(b[run] for b in biases))
        torch.testing.assert_close(together[run], alone, rtol=1e-12, atol=1e-13)


def test_relu_acts_between_layers_only(generator):
    x = normal(generator, 50, 3)
    one, two = gaussian_init([3, 3], generator), gaussian_init([3, 3, 3], generator)
    assert torch.equal(forward(one, x, "relu"), forward(one, x))
    assert (forward(two, x, "relu") < 0).any()
    assert not torch.allclose(forward(two, x, "relu"), forward(two, x))


@pytest.mark.parametrize("make", INITS)
def test_same_seed_same_bits(make):
    first, again, other = (make([4, 3, 5], torch.Generator().manual_seed(seed), (2,)) for seed in (7, 7, 8))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("make", INITS[:-1])
def test_initialisers_give_chained_float64_layers(make, generator):
    weights = make([4, 3, 5], generator, (2,))
    assert [w.shape for w in weights] == [(2, 3, 4), (2, 5, 3)]
    assert all(w.dtype == torch.float64 for w in weights)
    check_weights(weights)


@pytest.mark.seeds(3)
def test_gaussian_init_has_its_scale(generator):
    (w,) = gaussian_init([100, 100], generator, scale=0.3)
    # 10^4 entries: the mean's standard error is 0.3 / 100, the standard deviation's 0.3 / sqrt(2 10^4); five of each.
    assert abs(float(w.mean())) < 5 * 0.3 / 100
    assert abs(float(w.std()) - 0.3) < 5 * 0.3 / 2e4**0.5


def test_uniform_init_fills_linears_default_range(generator):
    widths, reach = [25, 400], 1 / 5
    (w,), (b,) = uniform_init(widths, generator), uniform_biases(widths, generator)
    assert b.shape == (400,)
    for entries in (w, b):
        # The largest of n uniform entries falls short of the bound by more than 20 / n once in e^20 times.
        assert reach * (1 - 20 / entries.numel()) < float(entries.abs().max()) <= reach
        assert abs(float(entries.mean())) < 5 * reach / (3 * entries.numel()) ** 0.5
    assert float(uniform_init(widths, generator, scale=3.0)[0].abs().max()) > 2 * reach


@pytest.mark.parametrize("widths", [[5, 5], [5, 3, 4]])
def test_spectrum_init_has_its_singular_values(widths, generator):
    for w in spectrum_init(widths, generator, (2,), scale=2.0, rate=0.5):
        expected = 2 * torch.exp(-0.5 * torch.arange(min(w.shape[-2:]), dtype=torch.float64))
        torch.testing.assert_close(singular_values(w), expected.expand(2, -1), rtol=0, atol=100 * EPS)


@pytest.mark.parametrize("widths", [[4, 4, 4], [5, 3, 4], [3, 5, 5, 4]])
def test_balanced_init_is_aligned_and_balanced(widths, generator):
    weights, rank = balanced_init(widths, generator, (), scale=0.7), min(widths)
    for w1, w2 in itertools.pairwise(weights):
        a = alignment_matrix(w1, w2)[:rank, :rank].abs()
        torch.testing.assert_close(a, torch.eye(rank, dtype=torch.float64), rtol=0, atol=1e-12)
        assert float(imbalance(w1, w2).abs().max()) < 100 * EPS
    values = 0.7 * torch.exp(-0.35 * torch.arange(rank, dtype=torch.float64))
    got = singular_values(end_to_end(weights))
    torch.testing.assert_close(got[:rank], values ** len(weights), rtol=1e-12, atol=0)


@pytest.mark.parametrize("lam", [0.5, -0.5, 1e-3])
@pytest.mark.parametrize("widths", [[4, 4, 4], [5, 3, 4], [3, 3, 3, 6], [4, 4, 4, 4, 4]])
def test_balanced_init_has_its_imbalance(widths, lam, generator):
    weights, rank = balanced_init(widths, generator, (2,), scale=0.7, imbalance=lam), min(widths)
    expected = lam * torch.eye(rank, dtype=torch.float64).expand(2, rank, rank)
    for w1, w2 in itertools.pairwise(weights):
        # Squares of values up to sqrt(0.7^2 + 3 |lambda|) = 1.4, summed over the rank.
        torch.testing.assert_close(imbalance(w1, w2), expected, rtol=0, atol=50 * EPS)
        torch.testing.assert_close(
            alignment_matrix(w1, w2).abs(), torch.eye(rank, dtype=torch.float64).expand(2, -1, -1), rtol=0, atol=1e-12
        )
    decay = 0.7 * torch.exp(-0.35 * torch.arange(rank, dtype=torch.float64))
    smallest = weights[-1] if lam > 0 else weights[0]
    torch.testing.assert_close(singular_values(smallest), decay.expand(2, -1), rtol=1e-12, atol=0)


def test_balanced_init_without_imbalance_is_what_it_was():
    frames = torch.Generator().manual_seed(3)
    q = [torch.linalg.qr(normal(frames, 2, width, 3))[0] for width in (4, 3, 5)]
    decay = 0.7 * torch.exp(-0.2 * torch.arange(3, dtype=torch.float64))
    got = balanced_init([4, 3, 5], torch.Generator().manual_seed(3), (2,), 0.7, 0.2)
    explicit = balanced_init([4, 3, 5], torch.Generator().manual_seed(3), (2,), 0.7, 0.2, imbalance=0.0)
    for lower, upper, layer, same in zip(q[:-1], q[1:], got, explicit, strict=True):
        assert torch.equal(layer, upper * decay @ lower.mT)
        assert torch.equal(layer, same)
    balanced_init([3, 5, 4], frames, imbalance=0.0)  # a wide hidden layer is refused at lambda != 0 only


def test_imbalance_that_cannot_be_is_refused(generator):
    with pytest.raises(ValueError, match=r"\(3, 5, 4\) at imbalance -0.1; C = lambda I needs hidden widths"):
        balanced_init([3, 5, 4], generator, imbalance=-0.1)
    for lam in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"it is the lambda of .* finite"):
            balanced_init([3, 3], generator, imbalance=lam)


def test_singular_values_descend_and_fit_the_frobenius_norm(generator):
    m = normal(generator, 2, 3, 5)
    s = singular_values(m)
    assert s.shape == (2, 3)
    assert (s.diff(dim=-1) <= 0).all()
    torch.testing.assert_close(s.square().sum(-1), m.square().sum((-2, -1)))


def test_bad_shapes_are_refused():
    w = torch.eye(3)
    with pytest.raises(ValueError, match="no layers; give at least one weight matrix"):
        check_weights(())
    with pytest.raises(ValueError, match=r"\(3, 3\) and \(2, 4\) do not chain"):
        check_weights((w, torch.zeros(2, 4)))
    with pytest.raises(ValueError, match=r"\(2, 3, 3\) and \(3, 3\) do not chain"):
        check_weights((w.expand(2, 3, 3), w))
    with pytest.raises(ValueError, match="activation is 'tanh'; choose one of linear, relu"):
        forward((w,), w, "tanh")


@pytest.mark.parametrize("make", [gaussian_init, uniform_init, spectrum_init, uniform_biases])
@pytest.mark.parametrize("widths", [[3], [], [3, 0]])
def test_bad_widths_are_refused(make, widths, generator):
    with pytest.raises(ValueError, match="give at least input and output width, each 1 or more"):
        make(widths, generator)
