"""Sentences of a report, as the terminal and the page have them."""

import pytest
import torch
from helpers.planted import planted
from helpers.reference import normal

from dyncollapse import diagnose
from dyncollapse.diagnostics.sentences import augmentation_sentence, threshold_sentence


def test_collapsed_means_below_the_cliff_where_that_is_above_the_noise_floor(generator):
    report = diagnose(planted(generator, 500, [1.0, 1.0, 1e-6]))
    assert threshold_sentence(report) == (
        f"Collapsed means a variance up to 0.0001, 0.0001 of the geometric mean of all larger variances "
        f"(noise floor: {report.noise_floor:.2g}). 95 % interval of the count: 1."
    )


def test_collapsed_means_within_rounding_where_that_is_more(generator):
    report = diagnose((planted(generator, 500, [1.0, 1.0, 1.0], mean=2000.0)).bfloat16())
    assert report.noise_floor > report.relative_level
    said = threshold_sentence(report)
    assert f"up to {report.noise_floor:.2g}, which rounding can explain (0.0001 of the geometric mean" in said


def test_the_interval_of_the_count_has_one_or_two_ends(generator):
    near = diagnose(planted(generator, 100, [1.0, 1.0, 0.98e-4]))
    assert threshold_sentence(near).endswith("95 % interval of the count: 0 to 1.")
    few = diagnose(normal(generator, 5, 3))
    assert "interval" not in threshold_sentence(few)


@pytest.mark.parametrize(
    ("views", "words"),
    [
        ("one-sided", "a small dimension grows below 1 and shrinks above"),
        ("two-sided", "1 means no shared signal, and only sampling or negatively correlated views give more"),
    ],
)
def test_rho_is_given_with_its_meaning_and_as_sampled(views, words, generator):
    z = normal(generator, 500, 4)
    noise = normal(generator, 500, 4) * torch.tensor([0.1, 0.5, 1.0, 3.0], dtype=torch.float64)
    report = diagnose(z, z + noise, views=views)
    said = augmentation_sentence(report)
    assert f"sampled rho from {report.ratios[-1]:.3g} to {report.ratios[0]:.3g} ({words})." in said
    assert ("Augmentation exceeds data in" in said) == (views == "one-sided")
    assert ("could be chance" in said or "share signal in at least 4 of 4" in said) == (views == "two-sided")
