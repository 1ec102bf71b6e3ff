import pytest
import scipy.stats
import torch

from dyncollapse.diagnostics.reservoir import Reservoir

# A true null fails a test at this quantile once in ten thousand sets of seeds; these are fixed.
QUANTILE = 1 - 1e-4


def numbered(start, stop):
    return torch.arange(start, stop, dtype=torch.float64).unsqueeze(1)


def drawn(seed, total, size, batch):
    reservoir = Reservoir(size, seed)
    for start in range(0, total, batch):
        reservoir.update(numbered(start, min(start + batch, total)))
    return reservoir


def assert_every_row_is_equally_likely(samples, total, size):
    """Chi-square over inclusions, which vary less than a multinomial by 1 - size/total: none comes twice."""
    counts = torch.zeros(total, dtype=torch.float64)
    for sample in samples:
        assert len(set(sample)) == size
        counts[sample] += 1
    expected = len(samples) * size / total
    statistic = float((counts - expected).square().sum()) / (expected * (1 - size / total)) * (total - 1) / total
    assert statistic < scipy.stats.chi2.ppf(QUANTILE, total - 1)
    # Far too even would be no chance either.
    assert statistic > scipy.stats.chi2.ppf(1 - QUANTILE, total - 1)


def kept(reservoir):
    return reservoir.rows.flatten().long().tolist()


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_every_row_is_kept_equally_often(batch):
    samples = [kept(drawn(seed, 40, 8, batch)) for seed in range(1000)]
    assert_every_row_is_equally_likely(samples, 40, 8)


@pytest.mark.parametrize("first", [5, 20, 36])
def test_merged_samples_are_uniform_over_both_streams(first):
    samples = []
    for seed in range(1000):
        one, two = Reservoir(8, seed), Reservoir(8, seed + 10_000)
        one.update(numbered(0, first))
        two.update(numbered(first, 40))
        one.merge(two)
        samples.append(kept(one))
    assert_every_row_is_equally_likely(samples, 40, 8)


def test_streams_of_two_seeds_are_thinned_independently():
    together = []
    for seed in range(2000):
        one, two = Reservoir(4, seed), Reservoir(4, seed + 10_000)
        one.update(numbered(0, 10))
        two.update(numbered(10, 20))
        one.merge(two)
        sample = set(kept(one))
        together.append(sum(k in sample and k + 10 in sample for k in range(10)))
    # Each of 10 pairs is in with probability (4/20)(3/19); pairs exclude each other, so the count is under-dispersed.
    expected = 10 * 4 * 3 / (20 * 19)
    assert abs(sum(together) / 2000 - expected) < 4 * (expected / 2000) ** 0.5


def test_a_merged_sample_takes_more_rows_still_evenly():
    samples = []
    for seed in range(1000):
        one, two = drawn(seed, 15, 6, 15), Reservoir(6, seed)
        two.update(numbered(15, 30))
        one.merge(two)
        one.update(numbered(30, 40))
        samples.append(kept(one))
    assert_every_row_is_equally_likely(samples, 40, 6)


def test_a_seed_settles_the_sample_and_another_changes_it():
    assert torch.equal(drawn(3, 500, 20, 50).rows, drawn(3, 500, 20, 50).rows)
    assert sorted(kept(drawn(3, 500, 20, 50))) == sorted(kept(drawn(3, 500, 20, 7)))  # places depend on the split
    assert not torch.equal(drawn(3, 500, 20, 50).rows, drawn(4, 500, 20, 50).rows)


@pytest.mark.parametrize("batch", [1, 3, 10, 1000])
def test_all_rows_stay_in_order_while_there_are_no_more_than_the_size(batch):
    reservoir = Reservoir(30, 0)
    for start in range(0, 30, batch):
        reservoir.update(numbered(start, min(start + batch, 30)))
        assert kept(reservoir) == list(range(min(start + batch, 30)))
    for start in range(30, 200):
        reservoir.update(numbered(start, start + 1))
        assert len(reservoir.rows) == len(reservoir.keys) == 30
        assert len(set(kept(reservoir))) == 30


def test_merging_keeps_order_and_all_rows_that_fit():
    one, two, empty = Reservoir(9, 0), Reservoir(9, 0), Reservoir(9, 0)
    one.update(numbered(0, 4))
    two.update(numbered(4, 9))
    empty.merge(one)
    one.merge(Reservoir(9, 1))
    assert kept(one) == kept(empty) == list(range(4))
    one.merge(two)
    assert kept(one) == list(range(9))
    assert kept(two) == list(range(4, 9))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.int16])
def test_rows_keep_their_format_and_are_copies(dtype):
    rows = torch.arange(12).reshape(6, 2).to(dtype)
    reservoir = Reservoir(6)
    reservoir.update(rows)
    rows.zero_()
    assert reservoir.rows.dtype == dtype
    assert reservoir.rows.flatten().tolist() == list(range(12))


def test_no_rows_are_no_row():
    reservoir = Reservoir(4)
    reservoir.update(torch.zeros(0, 3))
    assert reservoir.rows.shape == (0, 3)
    reservoir.update(torch.ones(2, 3))
    assert reservoir.rows.tolist() == [[1.0] * 3] * 2


def test_sizes_that_are_none_or_unlike_are_refused():
    with pytest.raises(ValueError, match="keep at least 2 rows"):
        Reservoir(1)
    one, two = Reservoir(4), Reservoir(5)
    two.update(numbered(0, 3))
    with pytest.raises(ValueError, match="samples of 5 rows do not merge into those of 4"):
        one.merge(two)
