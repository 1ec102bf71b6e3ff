"""Closed forms of BYOL and SimSiam against their population flow."""

import itertools
import math

import pytest
import torch

from dyncollapse import (
    GaussianTask,
    PairMoments,
    SelfDistillation,
    balanced_predictor,
    byol_learning_times,
    byol_rest,
    gaussian_init,
    population_flow,
    predictor_imbalance,
    spectrum_init,
)

D = 4


def rotated(generator, signal, view_var):
    """Moments with these variances along random directions."""
    frame, _ = torch.linalg.qr(torch.randn(len(signal), len(signal), generator=generator, dtype=torch.float64))
    s_e, g = (frame @ torch.diag(torch.tensor(v, dtype=torch.float64)) @ frame.T for v in (view_var, signal))
    return PairMoments.from_covariances((s_e + s_e.T) / 2, (g + g.T) / 2)


def aligned(rest, values, depth=1, rate=1.0):
    """Balanced layers whose product has these singular values along the modes, and the predictor in balance.

    The embedding is turned at random. Entries that stay zero but for round-off would hold the solver up.
    """
    root = torch.as_tensor(values, dtype=torch.float64).expand(len(rest.signal)) ** (1 / depth)
    turns = torch.randn(depth, D, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    turns = torch.linalg.qr(turns).Q
    frames = [rest.directions, *turns]
    weights = tuple(above @ torch.diag(root) @ below.T for below, above in itertools.pairwise(frames))
    return weights, rate**0.5 * frames[-1] @ torch.diag(root) @ frames[-1].T


def along(path, rest):
    return (path.product[-1] @ rest.directions).norm(dim=0)


@pytest.mark.parametrize(("depth", "rate"), [(1, 1.0), (1, 2.0), (2, 1.0), (3, 1.5)])
def test_rest_points(generator, depth, rate):
    task = rotated(generator, [0.9, 0.7, 0.6, 0.1], [1.0, 1.2, 2.0, 2.5])
    decay = 0.3 * float(byol_rest(task, predictor_rate=rate, depth=depth).critical_decay.sort().values[1])
    rest = byol_rest(task, decay, predictor_rate=rate, depth=depth)
    weights, predictor = aligned(rest, rest.encoder.clamp_min(0.2) * 1.3, depth, rate)
    path = population_flow(
        weights, task, 200 / decay, objective=SelfDistillation(rate), predictor=predictor, weight_decay=decay
    )
    torch.testing.assert_close(along(path, rest), rest.encoder, rtol=1e-6, atol=1e-6)
    found = torch.linalg.eigvalsh(path.predictor[-1])
    torch.testing.assert_close(found, rest.predictor.sort().values, rtol=1e-6, atol=1e-6)
    assert rest.encoder.count_nonzero() == 3


def test_one_layer_is_the_quadratic_formula():
    task = GaussianTask.block(3, 1, 1.5, views="two-sided")
    rest = byol_rest(task, 0.02)
    g, s_e = rest.signal, rest.view_var
    torch.testing.assert_close(rest.encoder, (g + (g**2 - 4 * 0.02 * s_e).sqrt()) / (2 * s_e))
    rho = 1 - g / s_e
    torch.testing.assert_close(rest.critical_decay, g * (1 - rho) / 4)
    torch.testing.assert_close(rest.encoder * rest.basin, 0.02 / s_e)  # Vieta
    found = [byol_rest(task, 0.02, depth=1, predictor_rate=rate).critical_decay for rate in (0.1, 7.0)]
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("target_rate", [None, 0.5])
@pytest.mark.parametrize(("depth", "rate"), [(1, 1.0), (1, 3.0), (2, 2.0)])
def test_critical_decay(depth, rate, target_rate):
    task = GaussianTask.block(D, D, 0.7, views="two-sided")
    critical = float(byol_rest(task, predictor_rate=rate, depth=depth).critical_decay[0])
    top = byol_rest(task, critical * (1 - 1e-12), predictor_rate=rate, depth=depth)
    weights, predictor = aligned(top, 1.2 * top.encoder, depth, rate)
    for factor, alive in ((0.95, True), (1.05, False)):
        decay = factor * critical
        path = population_flow(
            weights,
            task,
            (40 if depth == 1 else 20) / critical,
            objective=SelfDistillation(rate, target_rate),
            predictor=predictor,
            weight_decay=decay,
        )
        rest = byol_rest(task, decay, predictor_rate=rate, depth=depth).encoder
        torch.testing.assert_close(along(path, top), rest, rtol=1e-4, atol=1e-6)
        assert bool((rest > 0.01).all()) is alive


@pytest.mark.parametrize(("depth", "rate"), [(1, 1.0), (2, 2.0)])
def test_basin_divides_the_starts(generator, depth, rate):
    task = rotated(generator, [0.5] * D, [1.5] * D)
    decay = 0.5 * float(byol_rest(task, predictor_rate=rate, depth=depth).critical_decay.min())
    rest = byol_rest(task, decay, predictor_rate=rate, depth=depth)
    for factor in (1.01, 0.99):
        weights, predictor = aligned(rest, factor * rest.basin, depth, rate)
        path = population_flow(
            weights, task, 25 / decay, objective=SelfDistillation(rate), predictor=predictor, weight_decay=decay
        )
        expected = rest.encoder if factor > 1 else torch.zeros(D, dtype=torch.float64)
        torch.testing.assert_close(along(path, rest), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("smaller_lives", [True, False])
def test_an_output_goes_to_the_mode_that_rests_highest(generator, smaller_lives):
    # Mode k grows in another mode's output, at rate p (g_k - p s_k) - eta, where that output's p lies in k's interval.
    task, decay = rotated(generator, [0.6, 0.5], [1.2, 1.5]), 0.02
    rest = byol_rest(task, decay)
    upper = torch.arange(2) == rest.encoder.argmax()
    starts = torch.where(upper == smaller_lives, 0.5 * rest.basin, rest.encoder)
    frame = torch.linalg.qr(torch.randn(2, 2, generator=generator, dtype=torch.float64)).Q
    weights, predictor = frame @ torch.diag(starts) @ rest.directions.T, frame @ torch.diag(starts) @ frame.T
    nudge = 1e-6 * torch.randn(2, 2, generator=generator, dtype=torch.float64)
    path = population_flow(
        (weights + nudge,), task, [20.0, 3000.0], objective=SelfDistillation(), predictor=predictor, weight_decay=decay
    )
    before, after = (path.product @ rest.directions).norm(dim=-2)
    assert ((before > 0.1) == (upper != smaller_lives)).all()
    torch.testing.assert_close(after, torch.where(upper, rest.encoder, 0.0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_learning_times(generator, depth, decay):
    task = rotated(generator, [0.9, 0.7, 0.6, 0.5], [1.0, 1.2, 1.4, 1.5])
    decay *= float(byol_rest(task, predictor_rate=1.5, depth=depth).critical_decay.min())
    rest = byol_rest(task, decay, predictor_rate=1.5, depth=depth)
    starts = (1.5 * rest.basin).clamp_min(0.02)
    times = byol_learning_times(rest, starts, level=0.36)
    weights, predictor = aligned(rest, starts, depth, 1.5**1.0)
    path = population_flow(
        weights,
        task,
        times.sort().values,
        objective=SelfDistillation(1.5),
        predictor=predictor,
        weight_decay=decay,
        rtol=1e-9,
        method="DOP853",
    )
    for time, mode in zip(times, range(D), strict=True):
        at = int((path.time - time).abs().argmin())
        value = (path.product[at] @ rest.directions[:, mode]).norm()
        assert float(value / rest.encoder[mode]) == pytest.approx(0.6, rel=1e-6)


def test_learning_times_of_modes_that_die_or_have_arrived():
    task = GaussianTask.block(2, 1, 1.5, views="two-sided")
    rest = byol_rest(task, 0.1)
    times = byol_learning_times(rest, torch.tensor([0.9, 0.9], dtype=torch.float64))
    assert times.tolist() == [0.0, math.inf]
    assert byol_learning_times(rest, 0.99 * float(rest.basin[0]))[0] == math.inf
    assert byol_learning_times(byol_rest(task), 0.0).tolist() == [math.inf, math.inf]


@pytest.mark.parametrize("target_rate", [None, 0.3])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_imbalance_is_kept_and_shrunk_by_decay(generator, decay, target_rate):
    task = GaussianTask(
        torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=torch.float64),
        torch.tensor([[0.4, -0.2], [-0.2, 0.6]], dtype=torch.float64),
        "two-sided",
    )
    weights = gaussian_init([2, 5, 3], generator, (), 0.8)
    predictor = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    path = population_flow(
        weights,
        task,
        [0.0, 1.0, 8.0],
        objective=SelfDistillation(2.5, target_rate),
        predictor=predictor,
        weight_decay=decay,
        rtol=1e-10,
        method="DOP853",
    )
    found = predictor_imbalance(path.weights, path.predictor, 2.5)
    expected = found[0] * torch.exp(-2 * decay * path.time)[:, None, None]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
    assert float((path.predictor[-1] - predictor).norm()) > 0.1


@pytest.mark.parametrize(("excess", "dies"), [(-0.3, False), (0.3, False), (1.3, True)])
def test_without_decay_the_imbalance_decides(excess, dies):
    # C = p^2 - w^2 in units of (g / s_e)^2: the mode dies from C = 1 on.
    task = GaussianTask.block(1, 1, 0.5, views="two-sided")
    best = float(byol_rest(task).predictor[0])
    c = excess * best**2
    start = math.sqrt(max(-c, 0.0) + 1e-4)
    predictor = math.sqrt(start**2 + c)
    path = population_flow(
        (torch.full((1, 1), start).double(),),
        task,
        4000.0,
        objective=SelfDistillation(),
        predictor=torch.full((1, 1), predictor).double(),
        rtol=1e-10,
    )
    w, p = float(path.product[-1]), float(path.predictor[-1])
    assert w**2 == pytest.approx(0.0 if dies else best**2 - c, rel=1e-6, abs=1e-6)
    assert p == pytest.approx(math.sqrt(c) if dies else best, rel=1e-5)


def test_a_negative_prediction_kills_the_mode():
    task = GaussianTask.block(1, 1, 0.5, views="two-sided")
    start = torch.full((1, 1), 0.5).double()
    path = population_flow((start,), task, 1e5, objective=SelfDistillation(), predictor=-start)
    assert float(path.product[-1]) == pytest.approx(0.0, abs=1e-3)  # as 1 / t, without decay


def test_one_sided_augmentation_changes_nothing():
    found = [byol_rest(GaussianTask.block(2, 2, k), 0.05).encoder for k in (0.0, 5.0)]
    torch.testing.assert_close(found[0], found[1])


def test_modes_without_shared_signal_die(generator):
    task = rotated(generator, [0.5, 0.0, -0.5], [1.0, 1.0, 1.0])
    rest = byol_rest(task)
    assert sorted(rest.critical_decay.tolist()) == pytest.approx([0.0, 0.0, 0.0625])
    assert rest.encoder.count_nonzero() == 1
    (weights,) = spectrum_init([3, 3], generator, (), 1.0, 0.0)
    path = population_flow(
        (weights,), task, 2000.0, objective=SelfDistillation(), predictor=balanced_predictor((weights,))
    )
    assert torch.linalg.svdvals(path.product[-1])[1] < 0.05  # the others fall as powers of t


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_decay": -1}, "weight_decay is -1"),
        ({"weight_decay": math.nan}, "weight_decay is nan"),
        ({"predictor_rate": 0}, "predictor_rate is 0; it must be finite and above 0"),
        ({"depth": 1.5}, "depth is 1.5; it must be a whole number"),
    ],
)
def test_refuses_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        byol_rest(GaussianTask.block(2, 1), **settings)


def test_refuses_what_has_no_closed_form():
    s = torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=torch.float64)
    with pytest.raises(ValueError, match="do not commute"):
        byol_rest(GaussianTask(s, torch.diag(torch.tensor([0.1, 0.7], dtype=torch.float64)), "two-sided"))
    one_sided = PairMoments.from_covariances(
        torch.eye(2).double(), s / 2, "one-sided", 3 * torch.eye(2).double() - 0.1 * s
    )
    byol_rest(one_sided)  # all commute with s
    other = PairMoments(torch.diag(torch.tensor([1.0, 2.0])).double(), torch.eye(2).double(), s / 2, "one-sided")
    with pytest.raises(ValueError, match="do not commute"):
        byol_rest(other)
    with pytest.raises(ValueError, match="level is"):
        byol_learning_times(byol_rest(GaussianTask.block(2, 1)), 0.1, 1.0)
    with pytest.raises(ValueError, match="below 0 or NaN"):
        byol_learning_times(byol_rest(GaussianTask.block(2, 1)), math.nan)
