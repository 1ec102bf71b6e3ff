import pytest
import torch
from helpers.planted import RANKS, planted
from helpers.reference import normal, seeded

from dyncollapse import diagnose
from dyncollapse.diagnostics.measures import effective_rank, intrinsic_dimension, participation_ratio, rankme
from dyncollapse.diagnostics.spectra import covariance_spectrum

# --- Error bars

REPETITIONS = 300


def bars(seeds, n, scales):
    for seed in seeds:
        yield diagnose(normal(seeded(seed), n, len(scales)) * scales)


def test_intervals_cover_what_repetitions_spread_around():
    """300 trials of probability 0.95 lie within 0.90 and 0.99 but for 1 in 5000; bias is excluded by the mean."""
    scales = torch.tensor([2.0, 1.2, 1.0, 0.9, 0.7, 0.5, 0.4, 0.3], dtype=torch.float64)
    reports = list(bars(range(REPETITIONS), 500, scales))
    for name in RANKS:
        middle = sum(r.measures[name] for r in reports) / REPETITIONS
        covered = sum(r.intervals[name][0] <= middle <= r.intervals[name][1] for r in reports) / REPETITIONS
        assert 0.90 <= covered <= 0.99, (name, covered)


def test_interval_of_alpha_covers_too():
    # Twenty dimensions give its fit fifteen points.
    scales = torch.arange(1, 21, dtype=torch.float64).pow(-0.75)
    reports = list(bars(range(REPETITIONS), 500, scales))
    middle = sum(r.measures["alpha_req"] for r in reports) / REPETITIONS
    low_high = [r.intervals["alpha_req"] for r in reports]
    covered = sum(low <= middle <= high for low, high in low_high) / REPETITIONS
    assert 0.90 <= covered <= 0.99, covered


def half_width(report, name):
    low, high = report.intervals[name]
    return (high - low) / 2 / 1.96


@pytest.mark.parametrize("tails", ["gaussian", "heavy"])
@pytest.mark.parametrize("seed", range(2))
def test_standard_errors_are_those_of_a_row_bootstrap(tails, seed):
    """400 resamples know a standard deviation to 1 / sqrt(800) = 3.5 %, heavy tails to 7 %; the rest is curvature."""
    g = seeded(seed)
    n, resamples = 600, 400
    z = normal(g, n, 6) * torch.tensor([3.0, 1.5, 1.0, 0.8, 0.6, 0.4], dtype=torch.float64) + 0.2
    if tails == "heavy":
        z = z * (0.5 + normal(g, n, 1).abs())
    report = diagnose(z)
    found = {name: [] for name in RANKS}
    for _ in range(resamples):
        rows = z[torch.randint(0, n, (n,), generator=g)]
        spectrum = covariance_spectrum(rows)
        found["rankme"].append(float(rankme(rows)))
        found["effective_rank"].append(float(effective_rank(spectrum)))
        found["participation_ratio"].append(float(participation_ratio(spectrum)))
        found["stable_rank"].append(float(intrinsic_dimension(spectrum)))
    for name, values in found.items():
        spread = float(torch.tensor(values).std())
        assert half_width(report, name) == pytest.approx(spread, rel=0.2), name


def test_a_sample_of_the_rows_gives_about_the_same_bars():
    z = normal(seeded(0), 20_000, 8) * torch.tensor([2.0, 1.2, 1, 0.9, 0.7, 0.5, 0.4, 0.3], dtype=torch.float64)
    whole, part = diagnose(z, sample=20_000), diagnose(z, sample=1000)
    assert part.conventions["sample"] == 1000
    for name in (*RANKS, "participation_ratio_unbiased"):
        # Four standard errors of a standard deviation from 1000 rows, 4 sqrt(2 / (4 n)) with kurtosis 3: 9 %; doubled
        # for influences, which are sums of squares and so have heavier tails.
        assert half_width(part, name) == pytest.approx(half_width(whole, name), rel=0.18), name
        if name != "participation_ratio_unbiased":
            assert part.measures[name] == whole.measures[name]
    assert part.measures["participation_ratio_unbiased"] == pytest.approx(
        whole.measures["participation_ratio_unbiased"], rel=1e-4
    )


@pytest.mark.parametrize("seed", range(3))
def test_intervals_hold_their_own_value(seed):
    g = seeded(seed)
    # The fifth variance is 3 % below the level, and known to sqrt(2 / n) = 10 % only.
    report = diagnose(planted(g, 200, [1.0, 1.0, 1.0, 1.0, 0.97e-4, 1e-7, 1e-12]))
    assert report.collapsed == 3
    assert report.intervals["collapsed"] == (2, 3)
    for name, bar in report.intervals.items():
        if bar is not None and name != "collapsed":
            assert bar[0] < report.measures[name] < bar[1]


def test_nine_rows_have_no_error_bars():
    z = normal(seeded(0), 10, 3)
    assert all(bar is None for bar in diagnose(z[:9]).intervals.values())
    assert diagnose(z).intervals["rankme"] is not None
    assert diagnose(z).intervals["collapsed"] == (0, 0)


@pytest.mark.parametrize("sample", [2, 9])
def test_nine_sampled_rows_have_no_error_bars(sample):
    z = normal(seeded(0), 300, 3)
    assert all(bar is None for bar in diagnose(z, sample=sample).intervals.values())
    assert diagnose(z, sample=10).intervals["participation_ratio"] is not None
