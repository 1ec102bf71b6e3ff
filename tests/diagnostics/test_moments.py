import copy
from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers import reference
from helpers.constants import set_constant
from helpers.forks import run_together
from helpers.reference import EPS, normal, rotation
from hypothesis import given
from hypothesis import strategies as st

from dyncollapse.diagnostics.moments import Moments

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def moments(*batches, fast=False, dim=None):
    state = Moments(dim or batches[0].shape[1], fast=fast)
    for batch in batches:
        state.update(batch)
    return state


def assert_same(first, second, tolerance=100 * EPS):
    """Equal to round-off of the spread, not of the mean."""
    assert first.count == second.count
    scale = float(second.covariance.diagonal().max())
    torch.testing.assert_close(first.covariance, second.covariance, rtol=0, atol=tolerance * scale)
    largest = float(second.mean.abs().max())
    torch.testing.assert_close(first.mean, second.mean, rtol=0, atol=tolerance * scale**0.5 + 4 * EPS * largest)


@pytest.fixture
def small_blocks(monkeypatch):
    """So that a few rows fill several blocks, and several partial sums."""
    set_constant(monkeypatch, "diagnostics.moments.FEWEST_ROWS", 1)
    set_constant(monkeypatch, "diagnostics.moments.MOST_ROWS", 3)
    set_constant(monkeypatch, "diagnostics.moments.BLOCKS_PER_PARTIAL", 2)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("n", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("d", [1, 5])
def test_covariance_mean_and_second_moment_by_definition(n, d, generator):
    z = normal(generator, n, d) + 3
    got = moments(z)
    assert got.count == n
    assert got.covariance.dtype == got.mean.dtype == got.second_moment.dtype == torch.float64
    torch.testing.assert_close(got.mean, sum(z) / n, rtol=1e-14, atol=0)
    torch.testing.assert_close(got.covariance, reference.covariance(z), rtol=0, atol=1e-13)
    torch.testing.assert_close(got.second_moment, sum(torch.outer(row, row) for row in z) / n, rtol=1e-13, atol=0)
    assert torch.equal(got.covariance, got.covariance.T)
    assert torch.equal(got.second_moment, got.second_moment.T)
    assert got.finite


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any),
    d=st.integers(1, 6),
    offset=st.sampled_from([0.0, 1.0, 1e6]),
    seed=st.integers(0, 2**31),
)
def test_any_split_and_any_order_of_merging_give_the_same(sizes, d, offset, seed):
    generator = torch.Generator().manual_seed(seed)
    z = normal(generator, sum(sizes), d) + offset
    whole, parts = moments(z), z.split(sizes)
    assert_same(moments(*parts), whole)

    forward, backward = Moments(d), Moments(d)
    for part in parts:
        forward.merge(moments(part))
    for part in reversed(parts):
        fresh = moments(part)
        fresh.merge(backward)
        backward = fresh
    assert_same(forward, whole)
    assert_same(backward, whole)

    middle = len(parts) // 2
    left, right = moments(*parts[:middle], dim=d), moments(*parts[middle:])
    right.merge(left)
    assert_same(right, whole)


@pytest.mark.usefixtures("small_blocks")
def test_merging_leaves_the_other_alone_and_goes_on(generator):
    z = normal(generator, 30, 4)
    first, second = moments(z[:11]), moments(z[11:25])
    before = copy.deepcopy(second)
    first.merge(second)
    assert_same(second, before, tolerance=0)
    first.update(z[25:])
    assert_same(first, moments(z))
    first.merge(Moments(4))
    assert first.count == 30


def test_merging_with_itself_is_refused(generator):
    state = moments(normal(generator, 9, 3) + 5)
    with pytest.raises(ValueError, match="already share rows; merging them would count those rows twice"):
        state.merge(state)
    assert state.count == 9


def test_merging_twice_is_refused_also_by_way_of_others(generator):
    first, second, third = (moments(normal(generator, 9, 3)) for _ in range(3))
    second.merge(third)
    first.merge(second)
    for other in (second, third):
        with pytest.raises(ValueError, match="would count those rows twice"):
            first.merge(other)
    with pytest.raises(ValueError, match="do not merge with int; give Moments"):
        first.merge(3)
    with pytest.raises(ValueError, match="one number for each of 3 columns"):
        first.translate(torch.zeros(2))
    assert first.count == 27


def test_translation_moves_the_mean_and_keeps_every_digit_of_the_covariance(generator):
    z, offset = normal(generator, 40, 3), torch.tensor([1e9, -1e12, 0.0], dtype=torch.float64)
    state = moments(z)
    covariance = state.covariance
    state.translate(offset)
    assert torch.equal(state.covariance, covariance)
    torch.testing.assert_close(state.mean, z.mean(0) + offset, rtol=1e-14, atol=1e-14)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_any_format_count_as_the_numbers_they_are(dtype, fast, generator):
    rows = (normal(generator, 20, 4) + 1).to(dtype)
    got, double = moments(rows, fast=fast), moments(rows.double())
    assert_same(got, double, tolerance=0 if not fast else 1e-5)
    assert got.covariance.dtype == torch.float64


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_integers_are_exact(dtype, fast, generator):
    rows = torch.randint(0, 2, (50, 4), generator=generator).to(dtype)
    if dtype == torch.int64:
        rows += 2**40  # float32 would hold none of the differences
    got = moments(rows, fast=fast)
    expected = moments((rows.long() - (2**40 if dtype == torch.int64 else 0)).double())
    torch.testing.assert_close(got.covariance, expected.covariance, rtol=0, atol=1e-6 if fast else 1e-15)


@pytest.mark.usefixtures("small_blocks")
def test_strided_and_memory_mapped_rows(generator, tmp_path):
    z = normal(generator, 31, 8)
    assert_same(moments(z[::2, 1::3]), moments(z[::2, 1::3].contiguous()), tolerance=0)
    np.save(tmp_path / "z.npy", z.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "z.npy", mmap_mode="r+"))
    assert_same(moments(mapped), moments(z), tolerance=0)


def exact_covariance(z):
    columns = [[Fraction(value) for value in column] for column in z.T.tolist()]
    centred = [[value - sum(column) / len(column) for value in column] for column in columns]
    products = [[sum(a * b for a, b in zip(x, y, strict=True)) / len(x) for y in centred] for x in centred]
    return torch.tensor([[float(value) for value in row] for row in products], dtype=torch.float64)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("fast", [False, True])
def test_a_mean_far_above_the_spread_costs_no_digits(fast, generator):
    z = 1e6 * (1 + torch.arange(3)) + 1e-3 * normal(generator, 40, 3)
    expected = exact_covariance(z)
    tolerance = (1e-6 if fast else 20 * EPS) * float(expected.diagonal().max())
    merged = moments(z[:17], fast=fast)
    merged.merge(moments(z[17:], fast=fast))
    for got in (moments(z, fast=fast), moments(*z.split(1), fast=fast), merged):
        torch.testing.assert_close(got.covariance, expected, rtol=0, atol=tolerance)
        torch.testing.assert_close(got.mean, z.mean(0), rtol=4 * EPS, atol=0)


@pytest.mark.parametrize("fast", [False, True])
def test_thousands_of_single_rows_stay_at_round_off(fast, generator):
    # A flat spectrum of half rank: what is not there shows what adding up cost.
    d = 16
    z = normal(generator, 8000, d // 2) @ rotation(generator, d)[: d // 2]
    state = moments(*z.split(1), fast=fast)
    null = torch.linalg.eigvalsh(state.covariance)[: d // 2].abs()
    assert float(null.max()) < 10 * torch.finfo(torch.float32 if fast else torch.float64).eps
    assert_same(state, moments(z), tolerance=1e-6 if fast else 50 * EPS)


def test_fast_is_float32_close(generator):
    z = normal(generator, 5000, 20).float()
    fast, exact = moments(z, fast=True).covariance, moments(z).covariance
    difference = float((fast - exact).abs().max())
    assert 0 < difference < 1e-6


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("row", [0, 1, 4, 10])
def test_a_number_that_is_none_is_refused_by_its_row(bad, row, dtype, fast):
    z = torch.zeros(11, 3, dtype=dtype)
    state = moments(z, fast=fast)
    z[row, 1] = bad
    with pytest.raises(ValueError, match=rf"^row {row} holds NaN or infinity, first in column 1 \(counted from 0\)"):
        state.update(z)
    assert state.finite
    assert state.count in range(11, 11 + row + 1)  # with the blocks before that row's
    assert not state.spectrum().any()


def test_squares_that_overflow_show():
    assert not moments(torch.tensor([[0.0], [1e200]], dtype=torch.float64)).finite
    assert not moments(torch.tensor([[1e308], [-1e308]], dtype=torch.float64)).finite
    # No spread, but a second moment without bound.
    assert not moments(torch.full((3, 1), 1e200, dtype=torch.float64)).finite
    large = torch.tensor([[0.0], [1e25]])
    assert moments(large).finite
    assert not moments(large, fast=True).finite


def test_no_rows():
    state = moments(torch.zeros(0, 4))
    assert state.count == 0
    assert state.finite
    assert not state.mean.any()
    for what in (lambda: state.covariance, lambda: state.second_moment, state.spectrum):
        with pytest.raises(ValueError, match="no rows were added; their covariance is not defined"):
            what()


@pytest.mark.parametrize("shape", [(4,), (3, 5), (2, 3, 4), (0, 5)])
def test_rows_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"rows are torch.float32 of shape .*; expected real \(n, 4\)"):
        Moments(4).update(torch.zeros(shape))


def test_what_has_no_moments_is_refused():
    with pytest.raises(ValueError, match=r"torch.complex64 of shape \(2, 4\); expected real"):
        Moments(4).update(torch.zeros(2, 4, dtype=torch.complex64))
    with pytest.raises(ValueError, match="moments of 3 dimensions do not merge into those of 4"):
        Moments(4).merge(Moments(3))
    with pytest.raises(ValueError, match="rows need 1 dimension or more, got 0"):
        Moments(0)


def test_spectrum_descends_and_is_that_of_the_covariance(generator):
    z = normal(generator, 30, 6) @ normal(generator, 6, 6)
    state = moments(z[:10], z[10:])
    slow = torch.linalg.eigvalsh(reference.covariance(z)).flip(0)
    torch.testing.assert_close(state.spectrum(), slow, rtol=0, atol=100 * EPS * float(slow[0]))
    few = moments(z[:3]).spectrum()
    assert (few >= 0).all()
    assert (few.diff() <= 0).all()
    assert float(few[2]) < 10 * EPS * float(few[0])
    # Reading changes nothing.
    assert torch.equal(state.spectrum(), state.spectrum())


@pytest.mark.parametrize("fast", [False, True])
def test_state_outlives_the_mode_it_was_made_in(fast, generator):
    z = normal(generator, 20, 3).float()
    with torch.inference_mode():
        state = moments(z[:7], fast=fast)
    state.update(z[7:12].requires_grad_())
    with torch.autocast("cpu", torch.bfloat16):
        state.update(z[12:])
    assert not state.covariance.requires_grad
    assert_same(state, moments(z.detach()), tolerance=1e-5 if fast else 100 * EPS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("fast", [False, True])
def test_gpu_gives_the_same(fast, generator):
    z = normal(generator, 3000, 40).float() + 3
    state = Moments(40, fast=fast, device="cuda")
    state.update(z[:1000])
    state.update(z[1000:].cuda())
    expected = moments(z)
    difference = (state.covariance.cpu() - expected.covariance).abs().max()
    assert float(difference) < (1e-5 if fast else 1e-13)
    torch.testing.assert_close(state.spectrum().cpu(), expected.spectrum(), rtol=1e-5 if fast else 1e-12, atol=0)


# Every process takes its share of the rows of each case, and compares with all of them.
WORKER = """
import sys, torch
from dyncollapse.diagnostics.moments import Moments

rank, store = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
for case, (first, second) in enumerate([(6, 6), (11, 3), (0, 5), (4, 0), (0, 0), (1, 1)]):
    generator = torch.Generator().manual_seed(case)
    z = 1e6 * (case % 2) + torch.randn(first + second, 4, generator=generator, dtype=torch.float64)
    z[first:] += 7
    for fast in (False, True):
        whole, share = Moments(4, fast=fast), Moments(4, fast=fast)
        whole.update(z)
        share.update(z[first:] if rank else z[:first])
        share.all_reduce()
        assert share.count == whole.count == first + second
        if not whole.count:
            continue
        atol = 1e-5 if fast else 1e-13
        torch.testing.assert_close(share.mean, whole.mean, rtol=4e-16, atol=atol)
        torch.testing.assert_close(share.covariance, whole.covariance, rtol=0, atol=atol)
        copies = [torch.empty_like(share.covariance) for _ in range(2)]
        torch.distributed.all_gather(copies, share.covariance)
        assert torch.equal(*copies), "the processes differ"
bad = Moments(2)
bad.update(torch.tensor([[0.0, 0.0], [1e200, 1.0]], dtype=torch.float64) * rank)
bad.all_reduce()
assert not bad.finite
torch.distributed.destroy_process_group()
"""


def test_all_processes_get_the_moments_of_all_rows(tmp_path):
    run_together(*(["-c", WORKER, rank, tmp_path / "store"] for rank in range(2)))
