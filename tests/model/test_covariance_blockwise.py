import itertools
from pathlib import Path

import pytest
import torch
from helpers import forks, reference
from helpers.constants import set_constant
from helpers.reference import normal
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from dyncollapse import ContrastiveCovariance, contrastive_covariance, infonce, infonce_weights
from dyncollapse.model.covariance import blockwise_covariance

CASES = [*itertools.product(("infonce", "dot"), ("one-sided", "two-sided")), ("ntxent", "two-sided")]


def pairs(generator, n, d=4, m=3):
    x, p = normal(generator, n, d) * normal(generator, d).exp(), normal(generator, m, d) / 4
    x_pos = x + normal(generator, n, d)
    return x, x_pos, x @ p.T, x_pos @ p.T


def dense(x, x_pos, z, z_pos, loss, views, temperature=0.1):
    y, w = (x, z) if views == "one-sided" else (x_pos, z_pos)
    if loss == "infonce":
        return contrastive_covariance(x, x_pos, infonce_weights(z, z_pos, w), y)
    if loss == "ntxent":
        z, z_pos, w = (normalize(t, dim=-1) for t in (z, z_pos, w))
    logits = torch.where(torch.eye(len(z), dtype=torch.bool), (z * z_pos).sum(-1, keepdim=True), z @ w.T)
    return contrastive_covariance(x, x_pos, torch.softmax(logits / temperature, -1), y)


def distance(got, expected):
    """The larger of both sides' errors relative to their largest entries."""
    sides = ((got.data, expected.data), (got.augmentation, expected.augmentation))
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in sides)


@pytest.mark.parametrize(("loss", "views"), CASES)
@pytest.mark.parametrize("n", [2, 12, 13])
@pytest.mark.parametrize("tile", [4, 1024])
def test_equals_the_dense_form_at_any_block(loss, views, n, tile, generator, monkeypatch):
    set_constant(monkeypatch, "model._blocks.TILE", tile)
    problem = pairs(generator, n)
    expected = dense(*problem, loss, views)
    assert float(expected.data.trace()) > 1e-9
    assert float(expected.augmentation.trace()) > 1e-9
    for block in (1, 3, n - 1, n, n + 5, None):
        got = blockwise_covariance(*problem, loss=loss, views=views, block=block)
        assert got.data.dtype == torch.float64
        assert distance(got, expected) < 1e-12


@pytest.mark.parametrize(("loss", "views"), CASES)
def test_equals_the_dense_form_over_several_whole_tiles(loss, views):
    problem = pairs(torch.Generator().manual_seed(3), 2100)
    got = blockwise_covariance(
        *problem, loss=loss, views=views, temperature=0.7 if loss != "infonce" else None, block=999
    )
    assert distance(got, dense(*problem, loss, views, temperature=0.7)) < 1e-12


@given(
    seed=st.integers(0, 2**31),
    n=st.integers(2, 9),
    block=st.integers(1, 10),
    views=st.sampled_from(("one-sided", "two-sided")),
)
def test_equals_the_loops(seed, n, block, views):
    x, x_pos, z, z_pos = pairs(torch.Generator().manual_seed(seed), n)
    got = blockwise_covariance(x, x_pos, z, z_pos, views=views, block=block)
    data, augmentation = reference.contrastive_covariance(x, x_pos, reference.infonce_weights(z, z_pos, views), views)
    torch.testing.assert_close(got.data, data, rtol=1e-10, atol=1e-12)
    # The loops take 1 - alpha_ii for r, and lose digits where the positive takes nearly all.
    torch.testing.assert_close(got.augmentation, augmentation, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
def test_gradient_of_infonce_is_minus_p_times_x(views, generator):
    x, x_pos, p = normal(generator, 30, 5), normal(generator, 30, 5), normal(generator, 3, 5).requires_grad_()
    z, z_pos = x @ p.T, x_pos @ p.T
    (gradient,) = torch.autograd.grad(infonce(z, z_pos, z if views == "one-sided" else z_pos), p, retain_graph=True)
    force = blockwise_covariance(x, x_pos, z, z_pos, views=views, block=7).force
    assert not force.requires_grad
    assert float(gradient.norm()) > 1e-3
    torch.testing.assert_close(gradient, -p.detach() @ force, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("loss", "views"), CASES)
def test_both_sides_are_symmetric_and_psd(loss, views, generator):
    # More dimensions than samples: most eigenvalues are zero and come out at round-off.
    got = blockwise_covariance(*pairs(generator, 9, d=20), loss=loss, views=views, block=4)
    for side in (got.data, got.augmentation):
        assert torch.equal(side, side.T)
        values = torch.linalg.eigvalsh(side)
        assert float(values[0]) > -1e-13 * float(values[-1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
def test_a_common_offset_changes_nothing(views, dtype, generator):
    # On a grid of 2^-8 the sum with 2^10 is exact in float32 too, so all that is left is the products' round-off.
    x, x_pos = ((normal(generator, 50, 6) * 2**8).round().to(dtype) / 2**8 for _ in range(2))
    near = blockwise_covariance(x, x_pos, x, x_pos, views=views, block=16)
    x, x_pos = x + 2**10, x_pos + 2**10
    far = blockwise_covariance(x, x_pos, x, x_pos, views=views, block=16)
    assert distance(far, near) < (1e-12 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("loss", ["infonce", "dot"])
def test_an_anchor_is_no_negative_of_its_own(loss):
    # Positive and only negative are equally likely; an anchor's logit with itself would beat both by e^1000 or more.
    z = torch.tensor([[1e3, 0.0], [0.0, 1e3]], dtype=torch.float64)
    z_pos = z.flip(0)
    x, x_pos = torch.tensor([[0.0], [3.0]], dtype=torch.float64), torch.tensor([[5.0], [3.0]], dtype=torch.float64)
    got = blockwise_covariance(x, x_pos, z, z_pos, loss=loss, views="one-sided", block=1)
    torch.testing.assert_close(got.data, torch.tensor([[9 / 2]], dtype=torch.float64), rtol=1e-14, atol=0)
    torch.testing.assert_close(got.augmentation, torch.tensor([[25 / 4]], dtype=torch.float64), rtol=1e-14, atol=0)


def test_augmentation_side_keeps_digits_when_the_positive_takes_all(generator):
    # Negatives lie further than the positives by exactly 12 in each squared distance over 2, or by more than 2000.
    z = torch.tensor([[0.0], [5.0], [100.0]], dtype=torch.float64)
    z_pos = z - 1.0
    x, x_pos = normal(generator, 3, 4), normal(generator, 3, 4)
    got = blockwise_covariance(x, x_pos, z, z_pos, views="one-sided", block=2)
    weight = torch.exp(torch.tensor(-12.0, dtype=torch.float64))
    expected = sum(weight / (1 + weight) * torch.outer(row, row) for row in (x_pos - x)[:2]) / 3
    torch.testing.assert_close(got.augmentation, expected, rtol=1e-11, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("loss", "views"), CASES)
def test_lower_precision_costs_the_round_off_of_float32(dtype, loss, views, generator):
    narrow = [t.to(dtype) for t in pairs(generator, 300)]
    got = blockwise_covariance(*narrow, loss=loss, views=views)
    assert got.data.dtype == torch.float64
    expected = blockwise_covariance(*(t.double() for t in narrow), loss=loss, views=views)
    # Weights are as good as their logits, and dot's largest are above 100 at the default temperature.
    assert 0 < distance(got, expected) < 1e-5
    assert distance(blockwise_covariance(*narrow, loss=loss, views=views, dtype=torch.float64), expected) == 0


def test_sums_of_many_equal_weights_keep_their_digits_in_float32(generator):
    x, x_pos = normal(generator, 5000, 3).float(), normal(generator, 5000, 3).float()
    z = torch.zeros(5000, 1)
    got = blockwise_covariance(x, x_pos, z, z, views="one-sided", block=10)
    torch.testing.assert_close(got.data, 2 * torch.cov(x.T.double(), correction=0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize(("loss", "views"), CASES)
def test_arrays_stored_column_by_column_give_the_same_bits(loss, views, dtype, generator):
    problem = [t.to(dtype) for t in pairs(generator, 1500, 17, 5)]  # two tiles
    columns = [t.T.contiguous().T for t in problem]
    one, other = (blockwise_covariance(*given, loss=loss, views=views) for given in (problem, columns))
    assert torch.equal(one.data, other.data)
    assert torch.equal(one.augmentation, other.augmentation)


def test_reads_memory_mapped_inputs_and_leaves_them_alone(generator, tmp_path):
    problem = [t.float() for t in pairs(generator, 40)]
    mapped = []
    for number, t in enumerate(problem):
        file = tmp_path / str(number)
        file.write_bytes(t.contiguous().numpy().tobytes())
        mapped.append(torch.from_file(str(file), shared=True, size=t.numel()).view(t.shape))
    got, expected = blockwise_covariance(*mapped, block=7), blockwise_covariance(*problem, block=7)
    assert torch.equal(got.force, expected.force)
    assert all(torch.equal(a, b) for a, b in zip(mapped, problem, strict=True))


def test_reports_progress_after_every_block(generator):
    seen = []
    blockwise_covariance(*pairs(generator, 10), block=4, progress=lambda done, n: seen.append((done, n)))
    assert seen == [(4, 10), (8, 10), (10, 10)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize(("loss", "views"), CASES)
def test_cuda_equals_the_cpu(dtype, tolerance, loss, views, generator):
    problem = [t.to(dtype) for t in pairs(generator, 1500)]
    got = blockwise_covariance(*(t.cuda() for t in problem), loss=loss, views=views, block=400)
    assert got.data.is_cuda
    cpu = ContrastiveCovariance(got.data.cpu(), got.augmentation.cpu())
    assert distance(cpu, blockwise_covariance(*problem, loss=loss, views=views)) < tolerance


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_holds_no_array_of_n_by_n():
    code = """
import torch
from dyncollapse.model.covariance import blockwise_covariance
def megabytes(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
torch.set_num_threads(1)
x, x_pos, z, z_pos = (torch.randn(10_000, d) for d in (16, 16, 8, 8))
blockwise_covariance(*(t[:50] for t in (x, x_pos, z, z_pos)))
before = megabytes("VmRSS")
blockwise_covariance(x, x_pos, z, z_pos)
print(megabytes("VmHWM") - before)
"""
    result = forks.run(["-c", code])
    # 128 MB of weights and, for a moment, a tile's worth of logits; 10 000^2 float32 numbers would be 400 MB.
    assert 100 < float(result.stdout) < 300


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "spectral"}, "loss is 'spectral'; choose one of infonce, dot, ntxent"),
        ({"views": "both"}, "views is 'both'; choose one of one-sided, two-sided"),
        ({"loss": "ntxent", "views": "one-sided"}, "it needs views two-sided"),
        ({"temperature": 0.1}, "the infonce loss has none"),
        ({"loss": "dot", "temperature": 0.0}, "temperature is 0.0; it must be finite and above 0"),
        ({"loss": "dot", "temperature": float("nan")}, "temperature is nan; it must be"),
        ({"block": 0}, "block is 0; it must be at least 1"),
        ({"dtype": torch.float16}, "dtype is torch.float16; choose torch.float32 or torch.float64"),
        ({"x": torch.zeros(5, 2)}, r"they have \(5, 2\), \(6, 2\), \(6, 1\), \(6, 1\)"),
        ({"z": torch.zeros(6)}, r"they have \(6, 2\), \(6, 2\), \(6,\), \(6, 1\)"),
        ({"z": torch.zeros(5, 1), "z_pos": torch.zeros(5, 1)}, "x has 6 rows and z 5"),
        (dict.fromkeys(("x", "x_pos", "z", "z_pos"), torch.zeros(1, 2)), "at least two rows, not 1"),
    ],
)
def test_refuses_what_does_not_fit(change, message):
    given = {"x": torch.zeros(6, 2), "x_pos": torch.zeros(6, 2), "z": torch.zeros(6, 1), "z_pos": torch.zeros(6, 1)}
    with pytest.raises(ValueError, match=message):
        blockwise_covariance(**(given | change))
