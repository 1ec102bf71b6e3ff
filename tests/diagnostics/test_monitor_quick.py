"""Reports without intervals, without a comparison of views, or without either: the same numbers, fewer of them."""

import pytest
import torch
from helpers.monitor import gaussian, watched
from helpers.reference import normal, seeded
from hypothesis import given
from hypothesis import strategies as st

from dyncollapse import Monitor
from dyncollapse.diagnostics.spectra import centred_and_not

INTERVALS = "intervals are left out (`intervals` is off)"
COMPARED = "the views are not compared (`compare` is off): no causes, rho, signal_rank or lidar"
# Parts of a report that compare views.
OF_VIEWS = ("augmentation_ratio", "augmentation_share", "shared_signal")


def assert_close(got, expected):
    assert got == (expected if expected is None else pytest.approx(expected, rel=1e-9, abs=1e-14))


def views_of(others, rows, dim=6, collapsed=2):
    g = seeded(7)
    views = gaussian(g.initial_seed(), n=rows, d=dim, others=others)
    return [torch.cat([view[:, : dim - collapsed], 1e-4 * view[:, dim - collapsed :]], 1) for view in views]


@pytest.mark.parametrize("rows", [4, 60])  # fewer than dimensions, and more
@pytest.mark.parametrize("others", [0, 1, 3])
@pytest.mark.parametrize("intervals", [False, True])
@pytest.mark.parametrize("compare", [False, True])
def test_what_is_reported_equals_the_full_report_and_what_is_not_is_named(rows, others, intervals, compare):
    monitor = watched(views_of(others, rows))
    full, part = monitor.compute(), monitor.compute(intervals=intervals, compare=compare)
    mine, theirs = part.as_values(), full.as_values()
    for name in ("samples", "dim", "spectrum", "noise_floor", "collapsed"):
        assert_close(mine[name], theirs[name])
    compared = compare or not others
    for name, value in theirs["measures"].items():
        left_out = not compared and name in ("signal_rank", "lidar")
        assert_close(mine["measures"][name], None if left_out else value)
    for name, bar in theirs["intervals"].items():
        assert_close(mine["intervals"][name], bar if intervals else None)
    for name in OF_VIEWS if compared else ():
        assert (mine[name] is None) == (theirs[name] is None)
    if compared:
        assert part.verdict.fates == full.verdict.fates
    else:
        assert all(mine[name] is None for name in OF_VIEWS)
        assert (part.pairs, part.ratio) == (None, None)
    assert (INTERVALS in part.notes, COMPARED in part.notes) == (not intervals, not compared)
    assert part.conventions["intervals"].startswith("95 %" if intervals else "left out")


def test_the_verdict_says_that_views_were_not_compared():
    report = watched(views_of(1, 400)).compute(compare=False)
    assert report.collapsed == 2
    assert "the views were not compared, so causes are open" in report.verdict.sentence
    assert "the views were not compared" not in watched(views_of(0, 400)).compute(compare=False).verdict.sentence


def test_the_monitor_is_left_as_it_is():
    monitor = watched(views_of(2, 60))
    before = monitor.compute().as_values()
    monitor.compute(intervals=False, compare=False)
    assert monitor.compute().as_values() == before


@pytest.mark.parametrize("scale", [1e-140, 1e140])
def test_units_do_not_matter(scale):
    z = views_of(0, 60)[0]
    expected = watched([z]).compute(intervals=False)
    report = watched([z * scale]).compute(intervals=False)
    assert report.collapsed == expected.collapsed
    assert_close((report.spectrum / scale / scale).tolist(), expected.spectrum.tolist())
    assert_close(report.measures["rankme"], expected.measures["rankme"])


def test_embeddings_that_do_not_vary_have_no_measures():
    report = watched([torch.ones(20, 3)]).compute(intervals=False)
    assert report.collapsed == 3
    assert set(report.measures.values()) == {None}


@given(st.integers(0, 2**31), st.integers(1, 12), st.sampled_from([0.0, 1e-6, 1.0, 1e6]))
def test_one_tridiagonal_form_has_both_spectra(seed, dim, away):
    g = seeded(seed)
    root = normal(g, dim, dim)
    covariance, mean = root @ root.mT, away * normal(g, dim)
    centred, uncentred = centred_and_not(covariance, mean)
    for got, matrix in ((centred, covariance), (uncentred, covariance + torch.outer(mean, mean))):
        expected = torch.linalg.eigvalsh(matrix).flip(-1).clamp_min(0)
        eps = torch.finfo(torch.float64).eps
        torch.testing.assert_close(got, expected, rtol=0, atol=20 * dim * eps * float(expected[0]))


def test_both_spectra_leave_their_arguments_alone(generator):
    root = normal(generator, 5, 5)
    covariance, mean = root @ root.mT, normal(generator, 5)
    before = covariance.clone(), mean.clone()
    centred_and_not(covariance, mean)
    assert torch.equal(covariance, before[0])
    assert torch.equal(mean, before[1])


def test_options_of_compute_are_keywords():
    with pytest.raises(TypeError):
        Monitor().compute(False)
