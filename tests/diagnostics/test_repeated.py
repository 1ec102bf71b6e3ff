"""Repeated rows decide no cause that the distinct samples leave open."""

import pytest
import torch
from helpers.reference import normal, seeded

from dyncollapse import diagnose


def two_views(seed, repeats, only=None, n=60):
    """Views of n samples, each `repeats` times in both or in `only` one: 12 dimensions share signal, 4 small do not."""
    g = seeded(seed)
    signal = normal(g, n, 16) * torch.tensor([2.0] * 12 + [0.0] * 4)
    gain = torch.tensor([1.0] * 12 + [4e-3] * 4)
    views = []
    for k in range(2):
        drawn = n if only in (None, k) else n * repeats
        noise = normal(g, drawn, 16).repeat_interleave(n * repeats // drawn, 0)
        views.append((signal.repeat_interleave(repeats, 0) + noise) * gain)
    return views


def one_sided(seed, repeats, rho, clean_only, n=200):
    """Clean samples, each `repeats` times, and their augmented views: 4 small dimensions have this rho."""
    g = seeded(seed)
    x = normal(g, n, 16).repeat_interleave(repeats, 0)
    shift = torch.tensor([0.2] * 12 + [(2 * rho) ** 0.5] * 4, dtype=torch.float64)
    noise = normal(g, len(x), 16) if clean_only else normal(g, n, 16).repeat_interleave(repeats, 0)
    gain = torch.tensor([1.0] * 12 + [2e-3] * 4)
    return x * gain, (x + noise * shift) * gain


@pytest.mark.parametrize(("repeats", "only"), [(2, None), (10, None), (100, None), (10, 0), (10, 1)])
def test_repeated_two_sided_views_without_signal_stay_suppressed(repeats, only):
    for seed in range(5):
        z, positives = two_views(seed, repeats, only)
        report = diagnose(z, positives)
        assert report.verdict.fates == ["alive"] * 12 + ["suppressed"] * 4
        assert any("rows are repeated" in line for line in report.warnings)
        told = any("causes are decided as from 60 samples" in line for line in report.warnings)
        assert told == (only is None)  # fresh noise in one view makes products of both views independent


def test_repeated_rows_show_as_much_signal_as_distinct_ones():
    once, often = (diagnose(*two_views(0, repeats)) for repeats in (1, 10))
    assert once.verdict.unseen_signal == pytest.approx(often.verdict.unseen_signal, rel=1e-6)
    assert once.measures["signal_rank"] == often.measures["signal_rank"]
    assert not any("repeated" in line for line in once.warnings)


def test_a_sample_of_repeated_rows_shows_how_many_are_independent():
    z, positives = two_views(0, 20, n=600)
    report = diagnose(z, positives, sample=3000)
    assert report.verdict.fates == ["alive"] * 12 + ["suppressed"] * 4
    told = next(line for line in report.warnings if "rows are repeated" in line)
    assert 540 < int(told.split("decided as from ")[1].split()[0]) < 660


@pytest.mark.parametrize(("repeats", "clean_only"), [(2, True), (20, True), (3, False), (10, False)])
@pytest.mark.parametrize("rho", [1.0, 5.0])
def test_halves_that_share_rows_decide_no_one_sided_cause(rho, repeats, clean_only):
    for seed in range(3):
        z, positives = one_sided(seed, repeats, rho, clean_only)
        report = diagnose(z, positives, views="one-sided")
        assert report.verdict.fates == ["alive"] * 12 + ["unexplained"] * 4
        assert "(rows are repeated, so one half of the samples does not check the other)" in report.verdict.sentence
        assert any("whose halves share rows" in line for line in report.warnings)
        assert any("Give each sample once" in one.action for one in report.remedies)
        inputs = diagnose(
            z * torch.tensor([1.0] * 12 + [0.0] * 4), inputs=z, input_positives=positives, views="one-sided"
        )
        assert inputs.verdict.fates == ["alive"] * 12 + ["unresolved"] * 4


def test_a_few_repeated_rows_change_no_verdict():
    z, positives = one_sided(0, 1, 5.0, clean_only=False, n=400)
    z, positives = (torch.cat([view, view[:8]]) for view in (z, positives))
    assert diagnose(z, positives, views="one-sided").verdict.fates == ["alive"] * 12 + ["dead"] * 4


def test_fewer_than_ten_distinct_rows_are_too_few():
    for views in ("one-sided", "two-sided"):
        z, positives = one_sided(0, 10, 5.0, clean_only=False, n=9)
        scale = torch.tensor([1.0, 1.0, 1e-3])
        report = diagnose(z[:, :3] * scale, positives[:, :3] * scale, views=views)
        assert report.verdict.fates == ["alive", "alive", "unexplained"]
        assert "(too few samples to compare the views)" in report.verdict.sentence


@pytest.mark.parametrize(("n", "sample"), [(9, 4096), (40, 5)])
@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
def test_few_rows_are_the_reason_that_is_given(views, n, sample):
    g = seeded(0)
    z = normal(g, n, 4) * torch.tensor([1.0, 1.0, 1.0, 1e-3])
    report = diagnose(z, z + 1e-2 * normal(g, n, 4), views=views, sample=sample)
    assert report.verdict.fates == ["alive"] * 3 + ["unexplained"]
    assert "1 for a cause that is open (too few samples to compare the views)" in report.verdict.sentence
