import pytest
import torch
from helpers.equilibria import LOSSES, root_of, task_in
from helpers.reference import EPS, VIEWS, normal, random_covariance, rotation

from dyncollapse import (
    GaussianTask,
    Objective,
    end_to_end,
    gaussian_init,
    generalised_modes,
    modes,
    population_flow,
    population_force,
    rest_gram,
    rest_singular_values,
)
from dyncollapse.theory.modes import relative_modes


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
