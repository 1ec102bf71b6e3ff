"""What each loss makes of measured directions: closed forms, fates within sampling error, and times of learning."""

import math

import pytest
import torch

from dyncollapse.bridge.prediction.directions import find_directions, measure_pairs
from dyncollapse.bridge.prediction.fates import Correlations, bounded, fates_of
from dyncollapse.bridge.prediction.prediction import LinearEncoder, predict_loss

EMPTIED = 4
VARIANCES = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.5], dtype=torch.float64)
NOISE = torch.tensor([0.3, 0.5, 0.7, 0.9, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def directions():
    """Eight uncorrelated inputs; the last four share nothing between views, and the others have gamma 0.92 to 0.55."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(20_000, 8, generator=generator, dtype=torch.float64)
    image[:, -EMPTIED:] = 0
    views = [image + NOISE * torch.randn(image.shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    views = [view * VARIANCES.sqrt() for view in views]
    return find_directions(measure_pairs([tuple(views)], "two-sided", 20_000), 8, alike=True)


def test_rest_values_are_the_closed_forms_of_rho(directions):
    gamma = directions.gamma
    positive = gamma.clamp_min(0)
    for loss in ("spectral", "vcreg"):
        torch.testing.assert_close(predict_loss(directions, loss, LinearEncoder(), alike=True).rest, positive)
    u = (-1 + (1 + 8 * directions.rho).sqrt()) / 2
    torch.testing.assert_close(
        predict_loss(directions, "infonce", LinearEncoder(), alike=True).rest,
        (1 / u - 1).clamp_min(0),
        rtol=1e-6,
        atol=1e-9,
    )
    spectrum = predict_loss(directions, "spectral", LinearEncoder(), alike=True).spectrum
    torch.testing.assert_close(spectrum, positive.sort(descending=True).values)


@pytest.mark.parametrize("loss", ["infonce", "spectral", "vcreg", "barlow"])
def test_two_views_drawn_alike_suppress_and_kill_nothing(loss, directions):
    counts = predict_loss(directions, loss, LinearEncoder(), alike=True).fates.counts()
    assert counts == {"alive": 4, "suppressed": 4, "dead": 0, "decayed": 0, "no_room": 0}


def test_fewer_outputs_leave_no_room(directions):
    counts = predict_loss(directions, "spectral", LinearEncoder(outputs=3), alike=True).fates.counts()
    assert counts == {"alive": 3, "suppressed": 4, "dead": 0, "decayed": 0, "no_room": 1}


def test_weight_decay_kills_and_says_so(directions):
    # X0 = 4 G - w: 4 G is at least 4 along signal, and 0 +- 0.2 elsewhere.
    counts = predict_loss(directions, "spectral", LinearEncoder(weight_decay=2.0), alike=True).fates.counts()
    assert counts == {"alive": 4, "suppressed": 0, "dead": 0, "decayed": 4, "no_room": 0}
    for loss in ("infonce", "vcreg", "barlow", "byol"):
        counts = predict_loss(directions, loss, LinearEncoder(weight_decay=1000.0), alike=True).fates.counts()
        assert (counts["dead"], counts["decayed"]) == (0, 8)
    # What the loss kills by itself is dead, whatever weight decay adds.
    counts = predict_loss(
        directions, "vcreg", LinearEncoder(invariance=2.0, weight_decay=1000.0), alike=True
    ).fates.counts()
    assert (counts["dead"], counts["decayed"]) == (4, 4)


@pytest.mark.parametrize(
    ("invariance", "expected"),
    [
        (
            0.5,
            {"alive": 8, "suppressed": 0, "dead": 0, "decayed": 0, "no_room": 0},
        ),  # 1 - rho / 2 is 1/2 without shared signal
        (2.0, {"alive": 4, "suppressed": 0, "dead": 4, "decayed": 0, "no_room": 0}),
        (20.0, {"alive": 0, "suppressed": 0, "dead": 8, "decayed": 0, "no_room": 0}),
    ],
)
def test_the_coefficient_of_vcreg_sets_the_threshold(invariance, expected, directions):
    predicted = predict_loss(directions, "vcreg", LinearEncoder(invariance=invariance), alike=True)
    assert predicted.fates.counts() == expected


def test_learning_steps_are_those_of_a_logistic_where_moments_commute(directions):
    encoder = LinearEncoder(lr=0.01, init_scale=1e-2, outputs=8)
    steps = predict_loss(directions, "spectral", encoder, alike=True).learning_steps
    shared = directions.shared
    s = VARIANCES * (1 + NOISE.square())
    rest, start = directions.gamma, encoder.init_scale**2 * 8 * s
    times = torch.log((rest - start) / start) / (8 * rest * s)
    assert steps[shared].tolist() == pytest.approx((times / 0.01)[shared].tolist(), rel=0.1)
    at_once = predict_loss(directions, "spectral", LinearEncoder(lr=0.01, init_scale=10.0), alike=True).learning_steps
    assert (at_once[shared] == 0).all()


def test_slower_rates_take_as_many_more_steps(directions):
    fast, slow = (
        predict_loss(directions, "infonce", LinearEncoder(lr=lr, steps=1000), alike=True).learning_steps
        for lr in (0.01, 0.001)
    )
    alive = torch.isfinite(fast)
    torch.testing.assert_close(slow[alive], 10 * fast[alive])


def test_a_mode_within_its_error_of_zero_is_never_called_dead():
    told = torch.tensor([True, False, False])
    value = torch.tensor([0.9, 0.1, -0.2])
    gamma = bounded(value, torch.full((3,), 0.05), told, 0.3, alike=False)
    fates = fates_of("spectral", 1 - value, value.clamp_min(0), torch.ones(3, dtype=torch.bool), gamma)
    assert fates.counts() == {"alive": 1, "suppressed": 2, "dead": 0, "decayed": 0, "no_room": 0}


def test_a_mode_that_is_opposed_beyond_its_error_is_dead():
    value = torch.tensor([0.9, -0.5])
    gamma = bounded(value, torch.full((2,), 0.05), torch.tensor([True, True]), 0.3, alike=False)
    fates = fates_of("infonce", 1 - value, value.clamp_min(0), torch.ones(2, dtype=torch.bool), gamma)
    assert fates.dead.tolist() == [False, True]


def test_a_mode_without_any_augmentation_is_alive():
    one = torch.ones(1)
    fates = fates_of("infonce", 0 * one, math.inf * one, one > 0, Correlations(one, one, one))
    assert fates.alive.tolist() == [True]


def test_a_correlation_that_no_test_tells_from_zero_is_not_alive():
    told = torch.tensor([True, False])
    gamma = bounded(torch.tensor([0.6, 0.6]), torch.tensor([0.1, 0.1]), told, 0.5, alike=True)
    assert gamma.low[1] == 0
    ratio, room = 1 - gamma.value, torch.ones(2, dtype=torch.bool)
    assert fates_of("spectral", ratio, gamma.value, room, gamma).counts()["alive"] == 1


@pytest.mark.parametrize("settings", [{"invariance": 20.0}, {"weight_decay": 1e6}])
def test_the_learning_rate_follows_what_shrinks_fastest_too(settings, directions):
    loss = "vcreg" if "invariance" in settings else "spectral"
    assert predict_loss(directions, loss, LinearEncoder(**settings)).lr < 1.0


def test_steps_are_those_of_the_modes_that_live(directions):
    one = predict_loss(directions, "spectral", LinearEncoder(steps=10**9), alike=True)
    assert len(one.alive_steps) == one.fates.counts()["alive"] == one.learnt
