"""Each fast form equals the readable formula that it stands for, up to round-off."""

from contextlib import nullcontext

import pytest
import torch
from helpers.constants import set_constant
from helpers.pretend_cuda import pretend_cuda
from helpers.reference import EPS, VIEWS, normal, problems
from hypothesis import given
from hypothesis.strategies import booleans

from dyncollapse import GaussianTask, Pairs, gaussian_init, infonce_weights
from dyncollapse.model._kernels import (
    add_product,
    distance_logits,
    force_logits,
    infonce_forces,
    matrix_product,
    negative_weights,
)
from dyncollapse.model.forces import infonce_force, mean_force
from dyncollapse.model.losses import infonce_logits


def centred(x, x_pos, views):
    """Anchors around 0, the shift to the positives, and the negatives less the anchors' centre."""
    centre = x.mean(-2, keepdim=True)
    anchors = x - centre
    return anchors, x_pos - x, anchors if views == "one-sided" else x_pos - centre


WAYS = pytest.mark.parametrize("compiled", [True, False])


@pytest.fixture
def way(compiled, monkeypatch):
    """Take compiled forces, or those of PyTorch, which small batches do without."""
    if not compiled:
        set_constant(monkeypatch, "model._kernels.WIDEST", 0)


@given(problem=problems(), compiled=booleans())
def test_the_force_is_lemma_2s(compiled, problem):
    x, x_pos, p, views = problem
    expected = infonce_force(p, Pairs(x, x_pos, views))
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            set_constant(patch, "model._kernels.WIDEST", 0)
        got = infonce_forces(p, x, x_pos, one_sided=views == "one-sided")
    # Weights are exponentials of logits of the embeddings' squares; both sides are of the inputs' squares.
    size = float(max(x.abs().max(), x_pos.abs().max()))
    logits = 1 + (float(p.abs().max()) * size) ** 2
    torch.testing.assert_close(got, expected, rtol=0, atol=1000 * EPS * logits * size**2)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("dim", [4, 16])  # on both sides of FEW_COLUMNS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("runs", "batches"), [((), ()), ((5,), ()), ((5, 2), ()), ((5,), (3,)), ((), (7,)), ((2,), (2, 3))]
)
@pytest.mark.parametrize(("compiled", "most"), [(True, 2**22), (False, 2**22), (False, 1)])
@pytest.mark.usefixtures("way")
def test_the_mean_force_is_that_of_all_batches(most, runs, batches, dtype, dim, views, monkeypatch):
    set_constant(monkeypatch, "model._kernels.MOST_BYTES", most)  # several groups of batches
    generator = torch.Generator().manual_seed(0)
    (product,) = gaussian_init([dim, 3], generator, runs, 0.5)
    pairs = GaussianTask.block(dim, 2, views=views).sample(12, generator, (*batches, *runs))
    expected = infonce_force(product, pairs)
    expected = expected.mean(dim=tuple(range(len(batches)))) if batches else expected
    got = mean_force(product.to(dtype), pairs.to(dtype))
    assert got.dtype == dtype
    assert float(expected.abs().max()) > 0.1
    # Sums of 12 numbers of order 1 in each of 12 rows; logits are of order 10.
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=200 * torch.finfo(dtype).eps)


def spread(case, dtype, views, generator):
    """Five runs whose embeddings are of extreme size, or far apart in one way in the second and fourth run."""
    task, tiny = GaussianTask.block(6, 3, 2.0, views=views), torch.finfo(dtype).tiny
    (product,) = gaussian_init([6, 4], generator, (5,), 0.5)
    pairs = task.sample(12, generator, (5,))
    x, x_pos = pairs.anchor, pairs.positive
    odd, far = torch.tensor([1, 3]), 0.25 / tiny**0.5  # its square is finite
    if case == "huge weights":
        product[odd] *= far / 100
    elif case == "tiny weights":
        product *= tiny**0.95
    elif case == "clusters apart":
        x[odd, 6:], x_pos[odd, 6:] = x[odd, 6:] + 1e4, x_pos[odd, 6:] + 1e4
    elif case == "one sample apart":
        x[odd, 0], x_pos[odd, 0] = x[odd, 0] + 1e3, x_pos[odd, 0] + 1e3
    elif case == "one pair apart":
        x[odd, 0], x_pos[odd, 0] = x[odd, 0] + 1e3, x_pos[odd, 0] - 1e3
    elif case == "all apart":
        product[odd] *= 30.0 if dtype == torch.float32 else 90.0
    elif case == "positive far":
        x_pos[odd] += 80.0
    return product.to(dtype), Pairs(x, x_pos, views).to(dtype)


@WAYS
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "case",
    [
        "moderate",
        "tiny weights",
        "positive far",
        "clusters apart",
        "huge weights",
        "one sample apart",
        "one pair apart",
        "all apart",
    ],
)
def test_the_force_is_lemma_2s_at_any_distance(case, dtype, views, generator):
    product, pairs = spread(case, dtype, views, generator)
    got = infonce_forces(product, pairs.anchor, pairs.positive, one_sided=views == "one-sided")
    for run in range(5):
        alone = Pairs(pairs.anchor[run], pairs.positive[run], views)
        expected = infonce_force(product[run], alone)
        assert torch.isfinite(expected).all()
        # Both sides round off logits, of the order of the embeddings' squares, and sums of the inputs' squares; weights
        # stay between 0 and 1.
        z, eps = alone.anchor.double() @ product[run].double().T, torch.finfo(dtype).eps
        logits = float(
            (z - z.mean(0)).square().sum(-1).max() + (alone.positive @ product[run].T).double().square().max()
        )
        inputs = float((alone.anchor - alone.anchor.mean(0)).abs().max() + (alone.positive - alone.anchor).abs().max())
        torch.testing.assert_close(got[run], expected, rtol=0, atol=min(100 * eps * (1 + logits), 2) * inputs**2)


@WAYS
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("distance", [1.0, 15.0, 25.0, 34.0])
def test_a_force_that_is_nearly_zero_keeps_its_digits(distance, generator):
    # Samples of a grid, all positives near: the negatives' weights are down to exp(-34^2 / 2) = 1e-251 together.
    x = distance * torch.cartesian_prod(*[torch.arange(3.0, dtype=torch.float64)] * 2)
    x_pos = x + 0.1 * normal(generator, 9, 2)
    expected = infonce_force(torch.eye(2, dtype=torch.float64), Pairs(x, x_pos))
    got = infonce_forces(torch.eye(2, dtype=torch.float64), x, x_pos, one_sided=True)
    assert float(expected.abs().max()) > 0
    torch.testing.assert_close(got / expected.abs().max(), expected / expected.abs().max(), rtol=0, atol=1e-11)


@WAYS
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_number_stays_in_its_run(bad, generator):
    (product,) = gaussian_init([4, 3], generator, (3,), 0.5)
    pairs = GaussianTask.block(4, 2).sample(12, generator, (3,))
    expected = infonce_forces(product, pairs.anchor, pairs.positive, one_sided=True)
    product[1, 0, 0] = bad
    got = infonce_forces(product, pairs.anchor, pairs.positive, one_sided=True)
    assert torch.equal(got[[0, 2]], expected[[0, 2]])
    assert torch.isnan(got[1]).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_force_of_half_precision_is_computed_in_float32(dtype, generator):
    (product,) = gaussian_init([4, 3], generator, (), 0.5)
    pairs = GaussianTask.block(4, 2).sample(12, generator).to(dtype)
    got = infonce_forces(product.to(dtype), pairs.anchor, pairs.positive, one_sided=True)
    assert got.dtype == torch.float32
    expected = infonce_force(product.to(dtype).double(), pairs.to(torch.float64))
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=200 * torch.finfo(torch.float32).eps)


@given(problem=problems())
def test_logits_of_the_force_are_eq_2s(problem):
    x, x_pos, _, views = problem
    got = force_logits(*centred(x, x_pos, views))
    expected = infonce_logits(x, x_pos, None if views == "one-sided" else x_pos)
    size = float(max(x.abs().max(), x_pos.abs().max()))
    torch.testing.assert_close(got, expected, rtol=0, atol=100 * EPS * size**2)


def test_distances_are_those_of_every_pair(generator):
    z, y = normal(generator, 2, 4, 3), normal(generator, 2, 6, 3)
    got = distance_logits(z, y) - z.square().sum(-1, keepdim=True) / 2
    expected = -(z.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1) / 2
    torch.testing.assert_close(got, expected, rtol=0, atol=100 * EPS * (1 + float(expected.abs().max())))


@given(problem=problems())
def test_weights_of_the_negatives_are_eq_2s(problem):
    x, x_pos, _, views = problem
    alpha = infonce_weights(x, x_pos, None if views == "one-sided" else x_pos)
    own = torch.eye(x.shape[-2], dtype=torch.bool)
    b, r = negative_weights(force_logits(*centred(x, x_pos, views)))
    size = 1 + float(max(x.abs().max(), x_pos.abs().max())) ** 2
    torch.testing.assert_close(b, alpha.masked_fill(own, 0.0), rtol=0, atol=100 * EPS * size)
    torch.testing.assert_close(r.squeeze(-1), 1 - alpha.diagonal(dim1=-2, dim2=-1), rtol=0, atol=100 * EPS * size)


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0, 1e20, 1e200])
@pytest.mark.parametrize("pretend", [nullcontext, pretend_cuda])
def test_negative_weights_are_the_softmax_without_its_diagonal(pretend, scale, first, generator):
    logits = scale * normal(generator, 2, 4, 7)
    positives = torch.arange(first, first + 4) == torch.arange(7)[:, None]
    expected = torch.softmax(logits, -1).masked_fill(positives.T, 0.0)
    # Where the positive has nearly all of the weight, down to 1e-100 here, the negatives' is not what is left of 1.
    negatives = logits.masked_fill(positives.T, -torch.inf)
    sums = (negatives.logsumexp(-1, keepdim=True) - logits.logsumexp(-1, keepdim=True)).exp()
    with pretend():
        copied = logits.to("cpu" if pretend is nullcontext else "cuda", copy=True)
        b, r = (found.cpu() for found in negative_weights(copied, first))
    # Weights are powers of numbers with that round-off.
    rtol = 20 * EPS * (1 + float(logits.abs().max()))
    torch.testing.assert_close(b, expected, rtol=rtol, atol=0)
    torch.testing.assert_close(r, sums, rtol=rtol, atol=0)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_add_product_equals_its_formula(lead, generator):
    a, b, c = (normal(generator, *lead, *shape) for shape in ((4, 2), (2, 5), (1, 5)))
    for rows in (c, c[..., :1, :].expand(*lead, 4, 5)):
        torch.testing.assert_close(add_product(rows, a, b, -0.5, 2.0), 2.0 * a @ b - 0.5 * rows, rtol=1e-13, atol=1e-13)
    shared = normal(generator, 2, 5)
    torch.testing.assert_close(add_product(c, a, shared, 1.0, 1.0), a @ shared + c, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_matrix_product_is_one(lead, generator):
    a, b = normal(generator, *lead, 4, 2), normal(generator, *lead, 2, 5)
    torch.testing.assert_close(matrix_product(a, b), a @ b, rtol=1e-13, atol=1e-13)
