import contextlib
import itertools
import math

import pytest
import torch
from reference import EPS, normal, random_covariance, rotation

from dyncollapse import (
    FlowFailed,
    GaussianTask,
    Objective,
    collapse_threshold,
    end_to_end,
    escape_time,
    gaussian_init,
    generalised_modes,
    growth_rates,
    mode_flow,
    mode_singular_values,
    modes,
    population_flow,
    population_force,
    rest_gram,
    rest_singular_values,
    rest_variance,
    riccati_gram,
)
from dyncollapse.equilibria import relative_modes

VIEWS = ("one-sided", "two-sided")
LOSSES = [("infonce", None), ("dot", 0.5), ("spectral", None)]


def task_in(frame, data_vars, aug_vars, views="one-sided"):
    covs = (frame * torch.tensor(v, dtype=torch.float64) @ frame.T for v in (data_vars, aug_vars))
    return GaussianTask(*((c + c.T) / 2 for c in covs), views)


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
        with pytest.raises(ValueError, match=r"do not commute .*; use generalised_modes and rest_gram"):
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


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
def test_growth_rates_are_the_force_at_zero(loss, temperature, views, generator):
    task = task_in(rotation(generator, 4), [0.5, 2, 1, 0.7], [1.2, 0.4, 3, 0.1], views)
    force = population_force(torch.zeros(2, 4, dtype=torch.float64), task, Objective(loss, temperature))
    v = modes(task).directions
    expected = (v.T @ force @ v).diagonal()
    torch.testing.assert_close(growth_rates(task, loss, temperature), expected, rtol=1e-12, atol=1e-12)


def test_one_layer_escapes_exponentially():
    start = torch.full((1,), 1e-3, dtype=torch.float64)
    at = escape_time(1e-3, 0.5, 0.7)
    path = mode_flow([start], torch.tensor([0.7], dtype=torch.float64), at)
    assert float(path.product[-1]) == pytest.approx(0.5, rel=1e-7)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_deeper_modes_escape_where_their_flow_blows_up(depth):
    p0, growth = 1e-2, 0.7
    at = escape_time(p0, 1.0, growth, depth)
    layers = [torch.full((1,), p0 ** (1 / depth), dtype=torch.float64)] * depth
    force = torch.tensor([growth], dtype=torch.float64)
    assert float(mode_flow(layers, force, 0.5 * at).product[-1]) < 10 * p0
    # p' = L p^(3 - 2/L) x0 reaches infinity at t_esc, where p has grown by (1 - t / t_esc)^(-L / (2 L - 2)).
    near = float(mode_flow(layers, force, 0.999 * at, rtol=1e-11).product[-1])
    assert near == pytest.approx(p0 * 1e-3 ** (-depth / (2 * depth - 2)), rel=1e-5)
    with pytest.raises(FlowFailed):
        mode_flow(layers, force, 1.001 * at)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_escape_time_has_its_limits(depth):
    assert escape_time(0.5, 0.5, 1.0, depth) == 0
    assert escape_time(0.6, 0.5, 1.0, depth) == 0
    for start, target, growth in ((0.1, 0.5, 0.0), (0.1, 0.5, -1.0), (0.0, 0.5, 1.0), (0.1, 0.0, 1.0)):
        assert escape_time(start, target, growth, depth) == math.inf
    assert escape_time(0.1, 0.5, 0.5, depth) == pytest.approx(2 * escape_time(0.1, 0.5, 1.0, depth))
    later = [escape_time(start, 0.5, 1.0, depth) for start in (1e-1, 1e-3, 1e-6)]
    assert later == sorted(later)
    assert later[0] > 0
    assert math.isfinite(escape_time(0.1, math.inf, 1.0, depth)) == (depth > 1)


def test_what_has_no_closed_form_is_refused():
    task = GaussianTask.block(2, 1, views="two-sided")
    with pytest.raises(ValueError, match="ntxent has no rest point in closed form; choose infonce, dot or spectral"):
        rest_singular_values(task, "ntxent")
    with pytest.raises(ValueError, match="ntxent has no rest point in closed form"):
        rest_gram(GaussianTask.block(2, 2, views="two-sided"), "ntxent")
    with pytest.raises(ValueError, match="ntxent has no growth rate in closed form"):
        growth_rates(task, "ntxent")
    for call in (rest_singular_values, growth_rates, rest_gram):
        with pytest.raises(ValueError, match="the dot loss needs its temperature"):
            call(task, "dot")
        for temperature in (0.0, -1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match=r"temperature is .*; it must be finite and above 0"):
                call(task, "dot", temperature)
    with pytest.raises(ValueError, match="depth is 0; a network has at least 1 layer"):
        escape_time(0.1, 0.5, 1.0, 0)


def test_rest_point_is_stable(generator):
    task = task_in(rotation(generator, 3), [0.5, 1, 0.8], [0.6, 0.4, 1.0])
    rest = rotation(generator, 3) * rest_singular_values(task) @ modes(task).directions.T
    nudged = rest + 1e-2 * normal(generator, 3, 3)
    path = population_flow((nudged,), task, 100.0)
    before, after = (torch.linalg.svdvals(p) - torch.linalg.svdvals(rest) for p in (nudged, path.product[-1]))
    assert float(after.norm()) < 1e-6 < float(before.norm())


def noisy_task(generator, views="one-sided", d=4, strength=1.0):
    """Covariances that do not commute, both of full rank; rho on both sides of 1 when one-sided."""
    s, a = (0.2 * torch.eye(d, dtype=torch.float64) + random_covariance(generator, d) for _ in range(2))
    task = GaussianTask(s, strength * a, views)
    assert float((s @ a - a @ s).norm()) > 1e-2
    return task


def cancelling_task(generator, d=4, rank=2):
    """Data of low rank under correlated noise, which inputs without data help to cancel."""
    root, noise = normal(generator, d, rank), 0.1 * torch.eye(d, dtype=torch.float64)
    return GaussianTask(root @ root.T, (noise + random_covariance(generator, d)) / 4)


def root_of(gram):
    variances, vectors = torch.linalg.eigh(gram)
    return variances.clamp_min(0).sqrt().unsqueeze(1) * vectors.T


@pytest.mark.parametrize("views", VIEWS)
def test_generalised_modes_diagonalise_any_pair(views, generator):
    task = noisy_task(generator, views)
    (s_e, a_e), (ratio, u) = task.seen, generalised_modes(task)
    # Both covariances have condition numbers below 100.
    torch.testing.assert_close(u.T @ s_e @ u, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(u.T @ a_e @ u, 2 * torch.diag(ratio), rtol=0, atol=1e-12 * float(ratio[-1]))
    assert (ratio.diff() >= 0).all()


@pytest.mark.parametrize("strength", [0.1, 1.0, 10.0])
def test_as_many_modes_collapse_as_the_force_at_zero_has_negative_directions(strength, generator):
    # Sylvester: U^T (2 S_e - A_e) U = 2 (I - diag rho) has the inertia of 2 S_e - A_e.
    task = noisy_task(generator, strength=strength)
    s_e, a_e = task.seen
    ratio, _ = generalised_modes(task)
    dead = int((torch.linalg.eigvalsh(2 * s_e - a_e) <= 0).sum())
    assert int((ratio >= 1).sum()) == dead
    rest = torch.linalg.eigvalsh(rest_gram(task))
    assert int((rest < 1e-12 * rest[-1].clamp_min(1)).sum()) == dead
    # Where data is missing the noise-only inputs push inwards too, on top of the modes that the ratios count.
    task = cancelling_task(generator)
    task = GaussianTask(task.data_cov, strength * task.aug_cov)
    ratio, _ = generalised_modes(task)
    dead = int((torch.linalg.eigvalsh(2 * task.data_cov - task.aug_cov) < 0).sum())
    assert int((ratio > 1).sum()) + 2 == dead


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
def test_commuting_pairs_have_the_same_rest_point_both_ways(loss, temperature, views, generator):
    task = task_in(rotation(generator, 5), [0.5, 2, 1, 0.7, 1], [0.6, 0.4, 3, 0.1, 1.9], views)
    m, (ratio, _) = modes(task), generalised_modes(task)
    torch.testing.assert_close(ratio, m.ratio, rtol=1e-12, atol=0)
    expected = m.directions * rest_singular_values(task, loss, temperature).square() @ m.directions.T
    torch.testing.assert_close(rest_gram(task, loss, temperature), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", ["full rank", "cancelling"])
def test_ratios_are_blind_to_the_basis_and_the_rest_point_moves_with_it(case, generator):
    task = noisy_task(generator) if case == "full rank" else cancelling_task(generator)
    # Any change of coordinates x -> T x will do, for P x = (P T^-1) (T x) embeds the same.
    t = rotation(generator, 4) * torch.tensor([0.5, 1.0, 1.5, 2.0], dtype=torch.float64) @ rotation(generator, 4)
    s, a = (t @ cov @ t.T for cov in (task.data_cov, task.aug_cov))
    turned = GaussianTask((s + s.T) / 2, (a + a.T) / 2)
    torch.testing.assert_close(generalised_modes(turned)[0], generalised_modes(task)[0], rtol=1e-10, atol=0)
    expected = torch.linalg.inv(t).T @ rest_gram(task) @ torch.linalg.inv(t)
    torch.testing.assert_close(rest_gram(turned), expected, rtol=0, atol=1e-10 * float(expected.abs().max()))


def test_singular_data_keep_the_least_noise(generator):
    task = cancelling_task(generator)
    ratio, u = generalised_modes(task)
    assert (ratio.shape, u.shape) == ((2,), (4, 2))
    torch.testing.assert_close(u.T @ task.data_cov @ u, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-11)
    torch.testing.assert_close(u.T @ task.aug_cov @ u, 2 * torch.diag(ratio), rtol=0, atol=1e-11)
    # Whatever is added from the kernel of S leaves the signal alone, and none of it makes the noise smaller.
    kernel = torch.linalg.eigh(task.data_cov).eigenvectors[:, :2]
    torch.testing.assert_close(kernel.T @ task.aug_cov @ u, torch.zeros(2, 2, dtype=torch.float64), rtol=0, atol=1e-11)
    nudged = u + kernel @ normal(generator, 2, 2)
    assert (((nudged.T @ task.aug_cov) * nudged.T).sum(-1) > 2 * ratio).all()


@pytest.mark.parametrize("views", VIEWS)
def test_inputs_without_data_and_noise_are_left_out(views, generator):
    q = rotation(generator, 4)
    task = task_in(q, [1, 0.5, 0, 0], [0.3, 0.2, 0, 0], views)
    ratio, u = generalised_modes(task)
    assert len(ratio) == 2
    torch.testing.assert_close(q[:, 2:].T @ u, torch.zeros(2, 2, dtype=torch.float64), rtol=0, atol=1e-12)
    small = rest_gram(task_in(torch.eye(2, dtype=torch.float64), [1, 0.5], [0.3, 0.2], views))
    torch.testing.assert_close(rest_gram(task), q[:, :2] @ small @ q[:, :2].T, rtol=0, atol=1e-11)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
@pytest.mark.parametrize("depth", [1, 2])
def test_population_flow_ends_at_the_rest_point_of_any_pair(depth, loss, temperature, views, generator):
    task = noisy_task(generator, views, d=3)
    expected = rest_gram(task, loss, temperature)
    weights = gaussian_init([3] * (depth + 1), generator, (), 0.4)
    # Dead modes of two layers die like 1 / t in P and so like 1 / t^2 in P^T P, all others exponentially; errors of
    # the solver die with them.
    path = population_flow(weights, task, 1e6, objective=Objective(loss, temperature))
    got = path.product[-1].T @ path.product[-1]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-8 * float(expected.abs().max()))
    assert float((end_to_end(weights).T @ end_to_end(weights) - expected).norm()) > 0.1 * float(expected.norm())
    p = root_of(expected)
    velocity = p @ population_force(p, task, Objective(loss, temperature))
    # sqrt of the round-off in P^T P where modes are dead.
    assert float(velocity.abs().max()) < 1e-6 * float(p.abs().max())


@pytest.mark.parametrize("depth", [1, 2])
def test_population_flow_learns_to_cancel_correlated_noise(depth, generator):
    task = cancelling_task(generator)
    ratio, u = generalised_modes(task)
    assert float(ratio[0]) < 1
    expected = rest_gram(task)
    p = root_of(expected)
    assert float((p @ population_force(p, task, Objective())).abs().max()) < 1e-6 * float(p.abs().max())
    # What cancels the noise lies outside the data's range.
    outside = torch.eye(4, dtype=torch.float64) - torch.linalg.pinv(task.data_cov, hermitian=True) @ task.data_cov
    assert float((outside @ u).norm()) > 1e-2
    weights = gaussian_init([4] * (depth + 1), generator, (), 0.4)
    path = population_flow(weights, task, 1e6)
    got = path.product[-1].T @ path.product[-1]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-8 * float(expected.abs().max()))


def test_unbounded_and_undetermined_rest_points_are_refused(generator):
    with pytest.raises(ValueError, match="2 of 4 modes are not augmented at all and grow without bound"):
        rest_gram(GaussianTask.block(4, 2))
    task = cancelling_task(generator)
    for loss, temperature in LOSSES[1:]:
        with pytest.raises(ValueError, match=f"2 of 4 input directions carry no data, and the {loss} loss leaves them"):
            rest_gram(task, loss, temperature)


def test_rest_variance_has_its_limits():
    ratio = torch.tensor([0.0, 1e-300, 0.25, 1 - 1e-16, 1.0, 1.5, math.inf], dtype=torch.float64)
    c = rest_variance(ratio, torch.ones_like(ratio))
    assert c[0] == math.inf
    assert float(c[1]) == pytest.approx(0.5e300)
    # rho = 1/4: u^2 + u = 1/2, u = (sqrt(3) - 1) / 2.
    assert float(c[2]) == pytest.approx(3**0.5, rel=1e-14)
    assert (c[3:].abs() < 1e-15).all()
    assert (c[4:] == 0).all()


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


def riccati_task(generator, sigma, d=4):
    """Two-sided with S + A = sigma I, S of any spectrum below, in a random basis."""
    s = task_in(rotation(generator, d), [0.9 * sigma, 0.5 * sigma, 0.35 * sigma, 0.2 * sigma], [0] * d).data_cov
    return GaussianTask(s, sigma * torch.eye(d, dtype=torch.float64) - s, "two-sided")


@pytest.mark.parametrize("sigma", [1.0, 2.0])
@pytest.mark.parametrize(("loss", "temperature"), [("dot", 0.7), ("spectral", None)])
@pytest.mark.parametrize(("m", "rank"), [(4, 4), (2, 2), (6, 3)])
def test_riccati_solution_equals_the_integrator(m, rank, loss, temperature, sigma, generator):
    task = riccati_task(generator, sigma)
    # Rows of zeros stay zero to the last bit; a product of low rank would only be so up to round-off, which grows.
    start = torch.cat([0.3 * normal(generator, rank, 4), torch.zeros(m - rank, 4, dtype=torch.float64)])
    at, weight = 0.0, start
    torch.testing.assert_close(riccati_gram(start, task, 0.0, loss, temperature), start.T @ start, rtol=0, atol=1e-14)
    for t in (0.05, 0.5, 2.0, 10.0, 50.0):
        # From stop to stop, for between its steps the solver interpolates to a lower order.
        path = population_flow(
            (weight,), task, t - at, objective=Objective(loss, temperature), rtol=1e-12, atol=1e-16, method="DOP853"
        )
        at, weight = t, path.final()[0]
        got = riccati_gram(start, task, t, loss, temperature)
        torch.testing.assert_close(got, weight.T @ weight, rtol=0, atol=1e-10)
    if rank == 4:
        # The slowest rate of return, 2 B, is above 1: e^-50 is nothing.
        torch.testing.assert_close(got, rest_gram(task, loss, temperature), rtol=0, atol=1e-12)
        late = riccati_gram(start, task, 1e9, loss, temperature)
        torch.testing.assert_close(late, rest_gram(task, loss, temperature), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("loss", "temperature", "g"), [("dot", 0.7, 2 * 4 / 0.7**2), ("spectral", None, 4 * 4)])
def test_riccati_solution_satisfies_its_equation(loss, temperature, g, generator):
    task, weight, h = riccati_task(generator, 2.0), 0.3 * normal(generator, 3, 4), 1e-5
    b = (4 if loss == "spectral" else 2 / 0.7) * task.data_cov
    for t in (0.1, 0.4, 1.5):
        before, q, after = (riccati_gram(weight, task, t + shift, loss, temperature) for shift in (-h, 0.0, h))
        expected = b @ q + q @ b - 2 * g * q @ q
        # h^2 times a third derivative of order |2 B|^3 |Q| / 6 < 300, and round-off over h.
        torch.testing.assert_close((after - before) / (2 * h), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("loss", "temperature"), [("dot", 0.7), ("spectral", None)])
@pytest.mark.parametrize("m", [2, 4])
def test_riccati_solution_restarts_midway(m, loss, temperature, generator):
    task, weight = riccati_task(generator, 1.0), 0.3 * normal(generator, m, 4)
    # A start aligned with the modes, too, which the slow modes never leave.
    for start in (weight, modes(task).directions.T[-m:] * 0.2):
        for first, second in ((0.3, 0.9), (2.0, 3.0), (0.0, 1.0)):
            half = riccati_gram(start, task, first, loss, temperature)
            whole = riccati_gram(start, task, first + second, loss, temperature)
            again = riccati_gram(root_of(half)[-m:], task, second, loss, temperature)
            torch.testing.assert_close(again, whole, rtol=0, atol=1e-10)
    v = modes(task).directions
    late = riccati_gram(v.T[-2:], task, 1e6, loss, temperature)
    only = v[:, -2:] * (rest_singular_values(task, loss, temperature)[-2:].square()) @ v[:, -2:].T
    torch.testing.assert_close(late, only, rtol=0, atol=1e-12)


def test_riccati_solution_of_nothing_is_nothing(generator):
    task = riccati_task(generator, 1.0)
    assert not riccati_gram(torch.zeros(3, 4, dtype=torch.float64), task, 2.0, "spectral").any()
    # Without data B = 0, and Q' = -2 g Q^2 has Q = (Q0^-1 + 2 g t)^-1.
    eye, w = torch.eye(4, dtype=torch.float64), normal(generator, 4, 4)
    got = riccati_gram(w, GaussianTask(0 * eye, eye, "two-sided"), 3.0, "spectral")
    torch.testing.assert_close(got, torch.linalg.inv(torch.linalg.inv(w.T @ w) + 8 * 3 * eye), rtol=1e-11, atol=0)


def test_what_is_no_riccati_equation_is_refused(generator):
    task, w = riccati_task(generator, 1.0), normal(generator, 3, 4)
    for time in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"time is {time}; it must be finite and at least 0"):
            riccati_gram(w, task, time, "spectral")
    with pytest.raises(ValueError, match="the flow of infonce is no Riccati equation; choose dot or spectral"):
        riccati_gram(w, task, 1.0, "infonce")
    with pytest.raises(ValueError, match="the dot loss needs its temperature"):
        riccati_gram(w, task, 1.0)
    with pytest.raises(ValueError, match=r"needs S_e = sigma I .*; use population_flow instead"):
        riccati_gram(w, GaussianTask(task.data_cov, task.aug_cov), 1.0, "spectral")


def test_escape_times_leave_no_range_and_no_nan():
    # Twenty layers from 1e-200: p^-(2 - 2/20) overflows, and "never" is what is left.
    assert escape_time(1e-200, 1.0, 1.0, 20) == math.inf
    assert escape_time(1e-320, 1.0, 1.0, 3) == math.inf
    assert math.isfinite(escape_time(1e-100, 1.0, 1.0, 20))
    assert escape_time(0.0, 1.0, 1.0, 3) == math.inf
    nan = float("nan")
    for bad in ((nan, 1, 1), (0.1, nan, 1), (0.1, 1, nan), (-0.1, 1, 1)):
        with pytest.raises(ValueError, match="values are at least 0, none NaN"):
            escape_time(*bad)
    for depth in (0, 1.5, -1):
        with pytest.raises(ValueError, match="a network has at least 1 layer"):
            escape_time(0.1, 1.0, 1.0, depth)


@pytest.mark.parametrize(
    "arguments", [(0.5, "onesided"), (0.5, "one-sided", "hinge"), (-1.0,), (float("nan"),), (float("inf"),)]
)
def test_threshold_refuses_what_it_does_not_know(arguments):
    with pytest.raises(ValueError, match=r"choose one of|a variance, finite and at least 0"):
        collapse_threshold(*arguments)
    assert collapse_threshold(0.0) == 0


def test_relative_modes_solve_the_generalised_eigenproblem(generator):
    data, augmentation = random_covariance(generator, 6), random_covariance(generator, 6)
    ratios, u = relative_modes(data, augmentation, 1e-12)
    known = torch.linalg.eigvals(torch.linalg.solve(data, augmentation)).real.sort().values
    # A covariance of six samples has a condition number of up to 1e5 or so, and its inverse costs as many eps.
    condition = float(torch.linalg.cond(data))
    close = 100 * EPS * condition
    torch.testing.assert_close(ratios, known, rtol=close, atol=close * float(known[-1]))
    torch.testing.assert_close(u.T @ data @ u, torch.eye(6, dtype=torch.float64), rtol=0, atol=close)
    torch.testing.assert_close(u.T @ augmentation @ u, torch.diag(ratios), rtol=0, atol=close * float(ratios[-1]))


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_relative_modes_scale_with_the_augmentation_and_against_the_data(scale, generator):
    data, augmentation = random_covariance(generator, 5, 3), random_covariance(generator, 5)
    here, _ = relative_modes(data, augmentation, 1e-10)
    for there, factor in (
        (relative_modes(scale * data, augmentation, scale * 1e-10), 1 / scale),
        (relative_modes(data, scale * augmentation, 1e-10), scale),
        (relative_modes(scale * data, scale * augmentation, scale * 1e-10), 1.0),
    ):
        torch.testing.assert_close(there[0], factor * here, rtol=1e-7, atol=0)


def test_relative_modes_without_data_cancel_what_noise_they_can(generator):
    # The kernel's own noise block is best chosen to leave the Schur complement, the least quadratic form.
    data, augmentation = (
        torch.diag(torch.tensor([1.0, 2.0, 0.0, 0.0], dtype=torch.float64)),
        random_covariance(generator, 4),
    )
    ratios, u = relative_modes(data, augmentation, 1e-12)
    a, b, c = augmentation[:2, :2], augmentation[:2, 2:], augmentation[2:, 2:]
    schur = a - b @ torch.linalg.solve(c, b.T)
    known = torch.linalg.eigvals(torch.linalg.solve(data[:2, :2], schur)).real.sort().values
    close = 1e3 * EPS * float(torch.linalg.cond(c))
    torch.testing.assert_close(ratios, known, rtol=0, atol=close * float(augmentation.abs().max()))
    assert u.shape == (4, 2)


def test_relative_modes_count_the_rank_of_data_by_the_tolerance():
    data = torch.diag(torch.tensor([1.0, 1e-3, 1e-9], dtype=torch.float64))
    eye = torch.eye(3, dtype=torch.float64)
    for tolerance, rank in ((1e-12, 3), (1e-6, 2), (1e-2, 1)):
        ratios, u = relative_modes(data, eye, tolerance)
        assert (len(ratios), u.shape) == (rank, (3, rank))
    ratios, _ = relative_modes(eye, torch.zeros_like(eye), 1e-12)
    assert ratios.tolist() == [0.0] * 3
