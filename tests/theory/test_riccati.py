import math

import pytest
import torch
from helpers.equilibria import root_of, task_in
from helpers.reference import normal, rotation

from dyncollapse import GaussianTask, Objective, modes, population_flow, rest_gram, rest_singular_values, riccati_gram


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
