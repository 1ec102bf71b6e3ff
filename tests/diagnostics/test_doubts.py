"""Warnings about the count and the fates: each on a case where it must appear, and on healthy ones."""

import numpy as np
import pytest
import torch
from helpers.planted import CASES, planted, report_on
from helpers.reference import normal

from dyncollapse import diagnose
from dyncollapse.diagnostics.doubts import rows_to_see
from dyncollapse.diagnostics.shared_signal import noise_correlation

WORDS = (
    "share signal in no direction",
    "cannot tell a correlation",
    "without one cliff",
    "normalised",
    "two-sided views",
)


def said(report):
    """Which of WORDS the warnings contain."""
    return {word for word in WORDS for text in report.warnings if word in text}


def weak_views(n, seed=0):
    """Sixteen dimensions in use, and eight that are small but share signal: all of them wait."""
    rng = np.random.default_rng(seed)
    images, gain = 2.0 * rng.normal(size=(n, 24)), np.array([1.0] * 16 + [4e-3] * 8)
    return [(images + rng.normal(size=images.shape)) * gain for _ in range(2)]


@pytest.mark.parametrize("samples", [1000, 4000])
def test_planted_cases_are_warned_of_only_where_the_count_or_the_samples_leave_something_open(samples):
    open_ = {"heavy tail": {"without one cliff"}, "steep tail": {"without one cliff"}}
    if samples == 1000:
        open_["emptied"] = {"cannot tell a correlation"}
    for name in CASES:
        assert said(report_on(name, 0, samples)) == open_.get(name, set()), name


# --- Few samples


def test_few_samples_that_call_waiting_dimensions_suppressed_say_so():
    views = weak_views(4000)
    few, all_ = diagnose(*(view[:30] for view in views)), diagnose(*views)
    assert few.verdict.fates.count("suppressed") >= 5  # though all eight wait
    assert all_.verdict.fates.count("waiting") == 8
    assert said(few) == {"cannot tell a correlation"}
    assert said(all_) == set()


def test_as_many_rows_as_advised_show_weak_correlations(generator):
    gain = torch.tensor([1.0] * 16 + [1e-3] * 16, dtype=torch.float64)

    def emptied(n):
        shared = normal(generator, n, 32) * (torch.arange(32) < 16)
        return diagnose(*((shared + normal(generator, n, 32)) * gain for _ in range(2)))

    few = emptied(200)
    assert few.verdict.unseen_signal > 0.3
    (text,) = (text for text in few.warnings if "cannot tell" in text)
    rows = int(text.split("about ")[1].split()[0])
    assert rows > 1000
    assert emptied(rows).verdict.unseen_signal == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("directions", [1, 8, 300])
def test_the_advised_rows_are_the_least_that_show_a_correlation_and_grow_with_heavy_tails(directions):
    rows = rows_to_see(0.1, 1.0, 1, directions)
    assert noise_correlation(rows, directions) <= 0.1 < noise_correlation(rows - 1, directions)
    clean = noise_correlation(5000, directions)
    assert rows_to_see(0.1, clean, 5000, directions) == pytest.approx(rows, rel=0.01)
    assert rows_to_see(0.1, clean, 15000, directions) == pytest.approx(3 * rows, rel=0.01)  # a third is independent


# --- Views that do not fit


def test_rows_of_different_samples_share_no_signal():
    first, second = weak_views(1000)
    shuffled = second[np.random.default_rng(1).permutation(1000)]
    for other in (shuffled, np.roll(second, 1, axis=0)):
        for views in ("one-sided", "two-sided"):
            assert "share signal in no direction" in said(diagnose(first, other, views=views))
    report = diagnose(first, second, inputs=first, input_positives=shuffled)
    assert [text for text in report.warnings if "the views of the inputs share signal in no direction" in text]
    assert "share signal in no direction" not in said(diagnose(first[:200], shuffled[:200]))  # too few to say


def test_views_of_unlike_scale_or_normalisation_are_named(generator):
    z = normal(generator, 500, 8)
    other = z + 0.5 * normal(generator, 500, 8)
    unit = torch.nn.functional.normalize(other, dim=1)
    assert [text for text in diagnose(z, unit).warnings if text.startswith("some views are normalised")]
    assert [text for text in diagnose(z, unit, views="one-sided").warnings if text.startswith("some views are norm")]
    assert [text for text in diagnose(z, [other, unit]).warnings if text.startswith("some views are normalised")]
    assert "two-sided views" in said(diagnose(z, 3 * other))
    assert said(diagnose(z, 3 * other, views="one-sided")) == set()
    assert said(diagnose(z, other)) == set()


# --- The count and the fates


def test_a_collapse_with_a_slow_tail_is_reported_with_both_counts(generator):
    # Four directions in use; the others are just above the cliff and fall slowly, so most of them count as alive.
    variances = [40.0] * 4 + np.geomspace(8e-3, 4e-14, 60).tolist()
    report = diagnose(planted(generator, 2000, variances), svd=True)
    below = sum(value < 1e-4 * 40 for value in variances)
    assert report.collapsed < below / 2
    (text,) = (text for text in report.warnings if "without one cliff" in text)
    assert f"{report.collapsed} lie below" in text
    assert f"{below} below 0.0001 of the largest" in text
    assert text.endswith(f"RankMe is {report.measures['rankme']:.3g}")


@pytest.mark.parametrize("variances", [[1.0] * 64, [1.0] * 16 + [1e-6] * 48, np.arange(1, 65.0) ** -1.0])
def test_one_cliff_or_none_makes_no_doubt(variances, generator):
    assert said(diagnose(planted(generator, 2000, variances))) == set()


def test_fates_of_normalised_embeddings_are_an_interpretation():
    unit = [torch.nn.functional.normalize(torch.as_tensor(view), dim=1) for view in weak_views(2000)]
    report = diagnose(*unit)
    assert report.collapsed == 8
    assert said(report) == {"normalised"}
    assert said(diagnose(unit[0])) == set()  # no fate, no interpretation
    healthy = [torch.nn.functional.normalize(view, dim=1) for view in (unit[0][:, :8], unit[1][:, :8])]
    assert said(diagnose(*healthy)) == set()


def test_a_measure_that_is_not_defined_is_a_note(generator):
    report = diagnose(normal(generator, 500, 4))
    assert report.warnings == ()
    assert report.notes == (
        "alpha_req is not defined here: it is fitted from rank 6 on, but only 4 dimension(s) are not collapsed",
    )
    assert report.as_values()["notes"] == list(report.notes)


def test_a_report_is_shown_as_its_sentence(generator):
    report = diagnose(normal(generator, 500, 4).float() * torch.tensor([1.0, 1.0, 1.0, 1e-9]))
    assert repr(report) == str(report)
    assert len(repr(report)) < 300
    assert repr(report).startswith("<EmbeddingReport of 500 samples x 4 dimensions, embedding: 1 of 4 dimensions coll")
    assert "\n" not in repr(report)
    assert "`" not in repr(report)
