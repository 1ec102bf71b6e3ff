"""A long stiff population flow: ours against SciPy's LSODA on the same right-hand side with its own differences."""

import itertools

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from threadpoolctl import threadpool_limits

from dyncollapse import GaussianTask, gaussian_init, population_flow

DIM, UNTIL, RTOL = 16, 1e6, 1e-8
TOLERANCES = (1e-6, 1e-10)  # SciPy's default atol, and one that follows modes which die; given to both
CASES = list(itertools.product(("one-sided", "two-sided"), (0.1, 0.3), TOLERANCES))

pytestmark = [
    pytest.mark.benchmark(group="population flow"),
    pytest.mark.parametrize(("views", "scale", "atol"), CASES, ids=lambda value: str(value)),
]


@pytest.fixture(autouse=True)
def one_core():
    with threadpool_limits(1):
        yield


def problem(views, scale):
    weights = gaussian_init([DIM] * 3, torch.Generator().manual_seed(0), scale=scale)
    return weights, GaussianTask.block(DIM, DIM // 2, 1.5, views=views)


def ours(weights, task, atol):
    path = population_flow(weights, task, UNTIL, rtol=RTOL, atol=atol)
    return path.singular_values[-1].numpy(), path.meta["evaluations"]


def plain(weights, s_e, a_e, atol):
    """W1' = W2^T P X and W2' = P X W1^T with X = R [(I + K)^-1 + (I + K)^-2] R - A_e, K = R P^T P R, R = S_e^(1/2)."""
    eye, cells = np.eye(DIM), DIM * DIM
    variances, frame = np.linalg.eigh(s_e)
    root = frame * np.sqrt(variances) @ frame.T

    def velocity(_t, y):
        w1, w2 = y[:cells].reshape(DIM, DIM), y[cells:].reshape(DIM, DIM)
        p = w2 @ w1
        seen = p @ root
        half = np.linalg.inv(eye + seen.T @ seen) @ root
        px = p @ (root @ half + half.T @ half - a_e)
        return np.concatenate([(w2.T @ px).ravel(), (px @ w1.T).ravel()])

    start = np.concatenate([w.ravel() for w in weights])
    solution = solve_ivp(velocity, (0.0, UNTIL), start, "LSODA", t_eval=[UNTIL], rtol=RTOL, atol=atol)
    assert solution.success, solution.message
    w1, w2 = (part.reshape(DIM, DIM) for part in np.split(solution.y[:, -1], 2))
    return np.linalg.svd(w2 @ w1, compute_uv=False), solution.nfev


def test_exact_jacobian_in_log_time(benchmark, views, scale, atol):
    values, benchmark.extra_info["evaluations"] = benchmark.pedantic(ours, (*problem(views, scale), atol), rounds=3)
    assert np.isfinite(values).all()


def test_scipy_with_finite_differences(benchmark, views, scale, atol):
    weights, task = problem(views, scale)
    arguments = ([w.numpy() for w in weights], *(cov.numpy() for cov in task.seen), atol)
    values, benchmark.extra_info["evaluations"] = benchmark.pedantic(plain, arguments, rounds=3)
    expected, _ = ours(weights, task, atol)
    # Half of the modes grow to 2e6 and keep what hundreds of steps of rtol 1e-8 each cost them. The others rest or die,
    # and errors die with them: round-off in the force is left, and what steps add, below 100 atol.
    np.testing.assert_allclose(values[: DIM // 2], expected[: DIM // 2], rtol=1e-6)
    np.testing.assert_allclose(values[DIM // 2 :], expected[DIM // 2 :], rtol=0, atol=100 * atol)
