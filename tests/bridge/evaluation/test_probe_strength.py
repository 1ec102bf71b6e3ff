"""The decay of the logistic probe: chosen on held-out images, given, or the default where nothing can be held out."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from dyncollapse.bridge import logistic_probe
from dyncollapse.bridge.evaluation.probe import CHOSEN, DEFAULT, GIVEN, HELD_OUT, STRENGTHS, WEAKER
from dyncollapse.bridge.evaluation.probe_options import ProbeOptions
from dyncollapse.runtime.settings import SettingError


def noisy(generator, n, dim=60, classes=3, apart=0.8):
    """Representations of which every dimension says a little about the class: a probe of few images overfits."""
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(1)) * apart / 3
    return centres[labels] + torch.randn(n, dim, generator=generator), labels


def standardised(rows):
    centred = rows.double() - rows.double().mean(0)
    return (centred / centred.square().mean().sqrt()).numpy()


@pytest.mark.seeds(3)
def test_a_chosen_decay_beats_the_default_where_that_overfits(generator):
    train, test = noisy(generator, 150), noisy(generator, 6000)
    chosen, default = logistic_probe(train, test), logistic_probe(train, test, strength=1.0)
    assert default.train_top1 > 95 > default.top1
    assert chosen.settings["C"] < 1
    assert chosen.top1 > default.top1 - 2 * default.error  # a held-out part of 30 images may choose badly, but not much
    by_strength = [logistic_probe(train, test, strength=c).top1 for c in STRENGTHS]
    assert max(by_strength) > default.top1 + 2 * default.error


@pytest.mark.seeds(2)
def test_the_search_finds_the_accuracies_of_separate_exact_fits(generator):
    rows, labels = noisy(generator, 600)
    found = logistic_probe((rows, labels), (rows, labels)).settings
    x, held, y, y_held = train_test_split(
        standardised(rows), labels.numpy(), test_size=0.2, stratify=labels.numpy(), random_state=0
    )
    expected = [
        100 * LogisticRegression(C=c, tol=1e-8, max_iter=10**4).fit(x, y).score(held, y_held) for c in STRENGTHS
    ]
    one_image = 100 / len(y_held)
    assert np.abs(np.array(found["held_out_top1"]) - expected).max() < 1.5 * one_image
    assert found["grid"] == [*STRENGTHS]
    best = max(found["held_out_top1"])
    assert found["held_out_top1"][STRENGTHS.index(found["C"])] == best
    assert found["C_from"] == CHOSEN
    json.dumps(found, allow_nan=False)


def test_a_given_strength_is_that_of_one_fit(generator):
    train, test = noisy(generator, 300), noisy(generator, 300)
    for strength in (1.0, 0.01):
        probed = logistic_probe(train, test, strength=strength)
        fit = LogisticRegression(C=strength, solver="newton-cg", max_iter=1000).fit(standardised(train[0]), train[1])
        assert probed.train_top1 == 100 * fit.score(standardised(train[0]), train[1])
        assert (probed.settings["C"], probed.settings["C_from"]) == (strength, GIVEN)
        assert "grid" not in probed.settings
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SettingError, match="strength is"):
            logistic_probe(train, test, strength=wrong)


@pytest.mark.parametrize(("least", "origin"), [(HELD_OUT - 1, DEFAULT), (HELD_OUT, CHOSEN)])
def test_a_class_with_too_few_images_leaves_the_default(least, origin, generator):
    rows, labels = noisy(generator, 90)
    kept = torch.cat([(labels < 2).nonzero()[:, 0], (labels == 2).nonzero()[:least, 0]])
    settings = logistic_probe((rows[kept], labels[kept]), (rows, labels)).settings
    assert settings["C_from"] == origin
    assert settings["C"] == 1.0 or origin == CHOSEN


@pytest.mark.seeds(2)
def test_a_choice_at_the_edge_of_the_grid_is_marked(generator):
    # The classes are far apart in three dimensions, which are small beside twenty others: the weights have to grow.
    rows, labels = noisy(generator, 400, dim=3, apart=30.0)
    hidden = torch.cat([2e-3 * rows, torch.randn(len(rows), 20, generator=generator)], 1)
    settings = logistic_probe((hidden, labels), (hidden, labels)).settings
    assert settings["grid"][: len(STRENGTHS)] == [*STRENGTHS]
    assert settings["C"] > STRENGTHS[-1]  # beyond the usual grid
    assert settings["at_edge"] == (settings["C"] == WEAKER[-1])
    deeper = torch.cat([2e-5 * rows, torch.randn(len(rows), 20, generator=generator)], 1)
    unread = logistic_probe((deeper, labels), (deeper, labels), strength=WEAKER[-1])
    assert unread.train_top1 < 90  # not even the weakest decay lets the weights grow as far
    clear = logistic_probe((rows, labels), (rows, labels)).settings
    assert clear["at_edge"] is False


def test_of_equally_good_strengths_the_middle_one_is_chosen(generator):
    rows, labels = noisy(generator, 200, apart=100.0)
    settings = logistic_probe((rows, labels), (rows, labels)).settings
    assert set(settings["held_out_top1"]) == {100.0}
    assert settings["C"] == STRENGTHS[len(STRENGTHS) // 2]
    assert settings["at_edge"] is False


@pytest.mark.parametrize("spectrum", [torch.logspace(0, -6, 40), torch.eye(40)[0] + 1e-3, torch.ones(40)])
def test_no_spectrum_makes_the_solver_complain(spectrum, generator):
    # Warnings are errors here.
    rows, labels = noisy(generator, 300, dim=40)
    assert logistic_probe((rows * spectrum, labels), (rows * spectrum, labels)).train_top1 >= 50


def test_options_choose_the_classifier():
    assert ProbeOptions(strength=0.1).choose(images=10**7) == "logistic"
    assert ProbeOptions().choose(images=10**7) == "sgd"
    for options in ({"classifier": "sgd"}, {"epochs": 3}):
        with pytest.raises(SettingError, match="asks for sgd, whose decay is fixed; drop one"):
            ProbeOptions(strength=0.1, **options)
    with pytest.raises(SettingError, match="strength is 0"):
        ProbeOptions(strength=0.0)
