import contextlib
import itertools
import math

import pytest
import torch
from helpers.equilibria import LOSSES, task_in
from helpers.reference import EPS, VIEWS, normal, random_covariance, rotation

from dyncollapse import (
    GaussianTask,
    Objective,
    collapse_threshold,
    escape_time,
    gaussian_init,
    generalised_modes,
    growth_rates,
    mode_singular_values,
    modes,
    population_flow,
    population_force,
    rest_gram,
    rest_singular_values,
    rest_variance,
    riccati_gram,
)


@pytest.mark.parametrize("views", VIEWS)
def test_modes_diagonalise_both_covariances(views, generator):
    task = task_in(rotation(generator, 5), [0.5, 2, 1, 0.7, 1], [1, 0.4, 3, 0.1, 3], views)
    m = modes(task)
    v = m.directions
    torch.testing.assert_close(v * m.data_var @ v.T, task.data_cov, rtol=0, atol=100 * EPS)
    torch.testing.assert_close(v * m.aug_var @ v.T, task.aug_cov, rtol=0, atol=100 * EPS)
    assert (m.ratio.diff() >= -100 * EPS).all()
    s_e, a_e = (m.data_var, m.aug_var) if views == "one-sided" else (m.data_var + m.aug_var, 2 * m.aug_var)
    torch.testing.assert_close(m.ratio, a_e / (2 * s_e))
    assert sorted(len(group) for group in m.groups) == [1, 1, 1, 2]


def test_equal_modes_form_groups():
    m = modes(GaussianTask.block(5, 2, 0.7))
    assert m.groups == [[0, 1, 2], [3, 4]]
    assert m.aug_var.tolist() == [0, 0, 0, 0.7, 0.7]
    # One variance in common does not make two modes equal.
    eye = torch.eye(3, dtype=torch.float64)
    assert modes(task_in(eye, [1, 1, 2], [1, 2, 1])).groups == [[0], [1], [2]]


def test_groups_survive_a_rotation_when_the_ratios_coincide(generator):
    # A = 0.7 S: every mode has the ratio 0.35 up to round-off, which must not shuffle the two groups.
    s = task_in(rotation(generator, 6), [1, 1, 1, 2, 2, 2], [0] * 6).data_cov
    assert [len(group) for group in modes(GaussianTask(s, 0.7 * s)).groups] == [3, 3]


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
@pytest.mark.parametrize(
    ("data_vars", "aug_vars"),
    [([1, 2, 2, 1, 2], [0, 0, 0, 1, 1]), ([1, 2, 2, 0, 2], [0, 0, 0, 0, 1]), ([1, 2, 0, 0, 2], [0, 0.3, 0, 1, 1])],
    ids=["unaugmented", "empty", "noise only"],
)
def test_rest_values_do_not_depend_on_the_basis(data_vars, aug_vars, loss, temperature, views, generator):
    plain, turned = (
        rest_singular_values(task_in(frame, data_vars, aug_vars, views), loss, temperature).sort().values
        for frame in (torch.eye(5, dtype=torch.float64), rotation(generator, 5))
    )
    torch.testing.assert_close(turned, plain, rtol=1e-10, atol=1e-6)


def test_covariances_without_common_modes_are_refused(generator):
    s, a = random_covariance(generator, 3), random_covariance(generator, 3)
    task = GaussianTask(s, a)
    for call in (modes, rest_singular_values, growth_rates):
        with pytest.raises(ValueError, match=r"do not commute .*; use generalised_modes and rest_modes"):
            call(task)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
def test_force_vanishes_at_rest(loss, temperature, views, generator):
    task = task_in(rotation(generator, 5), [0.5, 2, 1, 0.7, 1], [0.6, 0.4, 3, 0.1, 1.9], views)
    rest = rest_singular_values(task, loss, temperature)
    p = rotation(generator, 5) * rest @ modes(task).directions.T
    velocity = p @ population_force(p, task, Objective(loss, temperature))
    assert float(velocity.abs().max()) < 1e-12 * float(rest.max()) * 10
    collapsed = 1 if (loss, views) == ("infonce", "one-sided") else 0
    assert int((rest == 0).sum()) == collapsed


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
@pytest.mark.parametrize("depth", [1, 2])
def test_population_flow_comes_to_rest_there(depth, loss, temperature, views):
    generator = torch.Generator().manual_seed(depth)
    # Far from the threshold modes converge exponentially, at rates of 0.3 and more: e^-30 is below the tolerance.
    # A dead mode of two layers would die like 1/t only, so that one is left to a single layer.
    aug = [0.6, 0.4, 3.0 if depth == 1 else 0.8]
    task = task_in(rotation(generator, 3), [0.5, 1, 0.8], aug, views)
    weights = gaussian_init([3] * (depth + 1), generator, (2,), 0.4)
    path = population_flow(weights, task, 100.0, objective=Objective(loss, temperature), rtol=1e-9)
    m = modes(task)
    got = mode_singular_values(path.product[-1], m.directions, m.groups)
    expected = rest_singular_values(task, loss, temperature)
    torch.testing.assert_close(got, expected.expand(2, -1), rtol=0, atol=1e-6)
    moved = path.product[-1] - (weights[0] if depth == 1 else weights[1] @ weights[0])
    assert float(moved.norm()) > 0.1


@pytest.mark.parametrize("data_var", [0.5, 2.0])
def test_threshold_separates_dead_from_living(data_var):
    threshold = collapse_threshold(data_var)
    assert threshold == 2 * data_var
    for factor, alive in ((0.999, True), (1.0, False), (1.001, False)):
        rest = rest_singular_values(GaussianTask.block(2, 1, factor * threshold, data_var))
        assert rest[0] == math.inf
        assert (float(rest[1]) > 0) == alive


@pytest.mark.parametrize(
    ("views", "loss"),
    [("two-sided", "infonce"), ("one-sided", "dot"), ("two-sided", "spectral"), ("two-sided", "ntxent")],
)
def test_noise_alone_has_no_threshold_elsewhere(views, loss):
    assert collapse_threshold(0.5, views, loss) is None


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("correlation", [-1.0, -0.5, -0.1, 0.0, 0.3])
@pytest.mark.parametrize(
    ("loss", "temperature", "invariance"),
    [
        ("infonce", None, None),
        ("dot", 0.2, None),
        ("spectral", None, None),
        ("vcreg", None, 0.8),
        ("vcreg", None, 2.0),
        ("barlow", None, None),
    ],
)
def test_correlated_noises_have_a_threshold_where_growth_changes_its_sign(
    loss, temperature, invariance, correlation, weight_decay
):
    options = {"temperature": temperature, "invariance": invariance}
    found = collapse_threshold(0.5, "two-sided", loss, **options, weight_decay=weight_decay, correlation=correlation)

    def grows(k):
        task = GaussianTask(*(torch.tensor([[v]], dtype=torch.float64) for v in (0.5, k)), "two-sided",
                            torch.tensor([[correlation * k]], dtype=torch.float64))  # fmt: skip
        return float(growth_rates(task, loss, temperature, invariance=invariance)) > weight_decay

    if found is None:
        assert all(grows(k) for k in (0.0, 1.0, 1e6))
    else:
        assert grows(0.99 * found)
        assert not grows(1.01 * found)
    if loss not in ("vcreg", "dot") and not weight_decay:
        assert found == (pytest.approx(0.5 / -correlation) if correlation < 0 else None)


@pytest.mark.parametrize("rho", [1e-12, 1e-8, 1e-4, 0.3, 0.999])
def test_rest_value_of_infonce_solves_its_quadratic_at_any_ratio(rho):
    # u = 1 / (1 + c) solves u^2 + u = 2 rho; 1/u here in the form without cancellation.
    rest = rest_singular_values(GaussianTask.block(1, 1, rho, 0.5))
    c = (1 + math.sqrt(1 + 8 * rho)) / (4 * rho) - 1
    assert float(rest[0]) ** 2 * 0.5 == pytest.approx(c, rel=1e-10)


def test_strong_two_sided_noise_suppresses_but_does_not_kill():
    s, a = 0.5, 1e4
    rest = rest_singular_values(GaussianTask.block(1, 1, a, s, "two-sided"))
    # Corrections are of relative order s / a.
    assert float(rest[0]) ** 2 == pytest.approx(2 / 3 * s / (s + a) ** 2, rel=10 * s / a)


@pytest.mark.parametrize("noise", [0.0, 0.3, 2.25, 100.0])
def test_dot_loss_rests_at_tau_s_over_the_squared_sum(noise):
    rest = rest_singular_values(GaussianTask.block(3, 2, noise, 1.0, "two-sided"), "dot", 0.1)
    torch.testing.assert_close(rest[0].square(), torch.tensor(0.1, dtype=torch.float64))
    assert float(rest[2]) ** 2 == pytest.approx(0.1 / (1 + noise) ** 2, rel=1e-12)
    # The spectral loss is the dot loss at tau = 1, up to a factor in time.
    spectral = rest_singular_values(GaussianTask.block(3, 2, noise, 1.0, "two-sided"), "spectral")
    torch.testing.assert_close(spectral, rest / 0.1**0.5)


def test_what_has_no_closed_form_is_refused():
    task = GaussianTask.block(2, 1, views="two-sided")
    with pytest.raises(ValueError, match="ntxent has no population limit in closed form; choose"):
        rest_singular_values(task, "ntxent")
    with pytest.raises(ValueError, match="ntxent has no population limit"):
        rest_gram(GaussianTask.block(2, 2, views="two-sided"), "ntxent")
    with pytest.raises(ValueError, match="ntxent has no population limit"):
        growth_rates(task, "ntxent")
    for call in (rest_singular_values, growth_rates, rest_gram):
        with pytest.raises(ValueError, match="the dot loss needs its temperature"):
            call(task, "dot")
        for temperature in (0.0, -1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match=r"temperature is .*; it must be finite and above 0"):
                call(task, "dot", temperature)
        for loss in ("infonce", "spectral"):
            with pytest.raises(ValueError, match=f"temperature is 0.5, but the {loss} loss has none"):
                call(GaussianTask.block(2, 2), loss, 0.5)
    with pytest.raises(ValueError, match="depth is 0; a network has at least 1 layer"):
        escape_time(0.1, 0.5, 1.0, 0)


def test_rest_point_is_stable(generator):
    task = task_in(rotation(generator, 3), [0.5, 1, 0.8], [0.6, 0.4, 1.0])
    rest = rotation(generator, 3) * rest_singular_values(task) @ modes(task).directions.T
    nudged = rest + 1e-2 * normal(generator, 3, 3)
    path = population_flow((nudged,), task, 100.0)
    before, after = (torch.linalg.svdvals(p) - torch.linalg.svdvals(rest) for p in (nudged, path.product[-1]))
    assert float(after.norm()) < 1e-6 < float(before.norm())


def test_rest_variance_has_its_limits():
    ratio = torch.tensor([0.0, 1e-300, 0.25, 1 - 1e-16, 1.0, 1.5, math.inf], dtype=torch.float64)
    c = rest_variance(ratio, torch.ones_like(ratio))
    assert c[0] == math.inf
    assert float(c[1]) == pytest.approx(0.5e300)
    # rho = 1/4: u^2 + u = 1/2, u = (sqrt(3) - 1) / 2.
    assert float(c[2]) == pytest.approx(3**0.5, rel=1e-14)
    assert (c[3:].abs() < 1e-15).all()
    assert (c[4:] == 0).all()


@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
def test_rest_variance_takes_any_shape(loss, temperature):
    ratio = torch.tensor([[0.25, 0.5, 0.75], [1.0, 1.5, 0.1]], dtype=torch.float64)
    every = rest_variance(ratio, 1 - ratio, loss, temperature, 1 - ratio)
    one_by_one = [rest_variance(rho, 1 - rho, loss, temperature, 1 - rho) for rho in ratio.flatten()]
    assert every.shape == (2, 3)
    assert all(one.shape == () for one in one_by_one)
    torch.testing.assert_close(every.flatten(), torch.stack(one_by_one))
    torch.testing.assert_close(
        rest_variance(ratio, torch.ones(()), loss, temperature)[0, 0],
        one_by_one[0].new_tensor(
            float(rest_variance(torch.tensor(0.25).double(), torch.ones(()).double(), loss, temperature))
        ),
    )


SPECTRA = ((0, 0, 0), (1, 0, 0), (1, 0.5, 0.25), (1e-18, 1, 1), (1e-300, 1, 0), (1e-200, 1e-200, 1e-200))


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
def test_degenerate_tasks_give_a_number_or_a_refusal(loss, temperature, views):
    generator = torch.Generator().manual_seed(3)
    weight = normal(generator, 3, 3)
    for frame in (torch.eye(3, dtype=torch.float64), rotation(generator, 3)):
        for data_vars, aug_vars in itertools.product(SPECTRA, SPECTRA):
            task = task_in(frame, data_vars, aug_vars, views)
            m = modes(task)
            rest, growth = (call(task, loss, temperature) for call in (rest_singular_values, growth_rates))
            found = [m.data_var, m.aug_var, m.ratio, m.directions, rest, growth, *generalised_modes(task)]
            for call in (
                lambda task=task: rest_gram(task, loss, temperature),
                lambda task=task: riccati_gram(weight, task, 3.0, loss, temperature),
            ):
                with contextlib.suppress(ValueError):
                    found.append(call())
                    assert torch.isfinite(found[-1]).all()
            assert not any(bool(torch.isnan(values).any()) for values in found)


@pytest.mark.parametrize(
    "arguments", [(0.5, "onesided"), (0.5, "one-sided", "hinge"), (-1.0,), (float("nan"),), (float("inf"),)]
)
def test_threshold_refuses_what_it_does_not_know(arguments):
    with pytest.raises(ValueError, match=r"choose one of|a variance, finite and at least 0"):
        collapse_threshold(*arguments)
    assert collapse_threshold(0.0) == 0
    for views, correlation in (("one-sided", -0.5), ("two-sided", -1.5), ("two-sided", math.nan)):
        with pytest.raises(ValueError, match="between -1 and 1, and is 0 for one-sided views"):
            collapse_threshold(0.5, views, correlation=correlation)
