"""Stiff population flows: CVODE, ours by default, against what else integrates the same right-hand side, on one core.

Peers are LSODA with our dense exact Jacobian, SciPy's LSODA with finite differences in plain NumPy, and diffrax's
Kvaerno5, whose Jacobian is JAX's. Sizes run in fresh processes, which tell the peak of their memory.
"""

import itertools
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
import torch
from helpers.peers import ABSENT, by_diffrax, installed
from helpers.timing import race
from scipy.integrate import solve_ivp
from threadpoolctl import threadpool_limits

from dyncollapse import GaussianTask, gaussian_init, population_flow
from dyncollapse.dynamics.tolerances import absolute_tolerances

DIM, RTOL = 16, 1e-8
TOLERANCES = (1e-6, 1e-10, None)  # SciPy's default, one that follows modes which die, and the round-off of the start
CASES = list(itertools.product((1e4, 1e6), ("one-sided", "two-sided"), (0.1, 0.3), TOLERANCES))

SIZES = {"32": (32, 2), "64": (64, 2), "128": (128, 2), "256": (256, 2), "512, one layer": (512, 1)}
FRESH = """
import json, sys, time
from pathlib import Path
import torch
from threadpoolctl import threadpool_limits
from dyncollapse import GaussianTask, gaussian_init, population_flow, recycle_freed_memory
dim, depth = map(int, sys.argv[1:])
recycle_freed_memory()
# Linux only; unlike ru_maxrss, it starts anew in a program that a large one has started.
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
before = peak()
weights = gaussian_init([dim] * (depth + 1), torch.Generator().manual_seed(0), scale=0.1)
with threadpool_limits(1):
    started = time.process_time()
    path = population_flow(weights, GaussianTask.block(dim, dim // 2, 1.5), 1e4, atol=1e-10)
    seconds = time.process_time() - started
kept = {name: path.meta[name] for name in ("evaluations", "jacobian_products")}
memory = {"MiB before": before, "MiB at the peak": peak()}
print(json.dumps({"seconds": round(seconds, 2)} | memory | kept))
"""

pytestmark = pytest.mark.benchmark(group="population flow", timer=time.process_time)


@pytest.fixture(autouse=True)
def one_core():
    with threadpool_limits(1):
        yield


def problem(views: str, scale: float) -> Any:
    weights = gaussian_init([DIM] * 3, torch.Generator().manual_seed(0), scale=scale)
    return weights, GaussianTask.block(DIM, DIM // 2, 1.5, views=views)


def formula(task: GaussianTask, library: Any) -> Any:
    """W1' = W2^T P X and W2' = P X W1^T with X = R [(I + K)^-1 + (I + K)^-2] R - A_e, K = R P^T P R, R = S_e^(1/2)."""
    s_e, a_e = (cov.numpy() for cov in task.seen)
    variances, frame = np.linalg.eigh(s_e)
    eye, root = np.eye(DIM), frame * np.sqrt(variances) @ frame.T

    def velocity(layers: Any) -> Any:
        w1, w2 = layers
        p = w2 @ w1
        seen = p @ root
        half = library.linalg.inv(eye + seen.T @ seen) @ root
        px = p @ (root @ half + half.T @ half - a_e)
        return w2.T @ px, px @ w1.T

    return velocity


def plain(weights: Any, task: GaussianTask, until: float, atol: float | None) -> np.ndarray:
    velocity = formula(task, np)

    def flat(_t: float, y: np.ndarray) -> np.ndarray:
        return np.concatenate([v.ravel() for v in velocity(part.reshape(DIM, DIM) for part in np.split(y, 2))])

    start = np.concatenate([w.numpy().ravel() for w in weights])
    tolerances = np.concatenate([a.numpy().ravel() for a in absolute_tolerances(weights, (), RTOL, atol, smooth=True)])
    solution = solve_ivp(flat, (0.0, until), start, "LSODA", t_eval=[until], rtol=RTOL, atol=tolerances)
    assert solution.success, solution.message
    return singular_values(part.reshape(DIM, DIM) for part in np.split(solution.y[:, -1], 2))


def singular_values(layers: Any) -> np.ndarray:
    w1, w2 = map(np.asarray, layers)
    return np.linalg.svd(w2 @ w1, compute_uv=False)


def agree(results: dict[str, np.ndarray], atol: float) -> None:
    # Half of the modes grow to 2e6 and keep what hundreds of steps of rtol 1e-8 each cost them. The others rest or die,
    # and errors die with them: round-off in the force is left, and what steps add, below 100 atol.
    first, *others = results.values()
    for other in others:
        np.testing.assert_allclose(other[: DIM // 2], first[: DIM // 2], rtol=1e-6)
        np.testing.assert_allclose(other[DIM // 2 :], first[DIM // 2 :], rtol=0, atol=100 * atol)


@pytest.mark.parametrize(("until", "views", "scale", "atol"), CASES, ids=str)
def test_tolerances(benchmark, until, views, scale, atol):
    weights, task = problem(views, scale)

    def ours(method: str) -> np.ndarray:
        path = population_flow(weights, task, until, rtol=RTOL, atol=atol, method=method)
        benchmark.extra_info[f"evaluations, {method}"] = path.meta["evaluations"]
        return singular_values(layer[-1] for layer in path.weights)

    contenders = {
        "ours": lambda: ours("CVODE"),
        "LSODA, exact Jacobian": lambda: ours("LSODA"),
        "LSODA, finite differences": lambda: plain(weights, task, until, atol),
    }
    agree(race(benchmark, contenders), 1e-10 if atol is None else atol)


@pytest.mark.skipif(not installed("diffrax"), reason=f"diffrax is {ABSENT}")
@pytest.mark.parametrize("until", [1e4, 1e6], ids=str)
def test_diffrax(benchmark, until):
    weights, task = problem("one-sided", 0.1)
    atol = 1e-10
    import jax

    solve = by_diffrax("Kvaerno5", formula(task, jax.numpy), weights, until, RTOL, atol)
    contenders = {
        "ours": lambda: singular_values(w[-1] for w in population_flow(weights, task, until, atol=atol).weights),
        "diffrax": lambda: singular_values(solve()),
    }
    agree(race(benchmark, contenders, rounds=1), atol)


@pytest.mark.benchmark(timer=time.perf_counter)
def test_sizes(benchmark):
    def fresh(dim: int, depth: int) -> dict[str, float]:
        command = [sys.executable, "-c", FRESH, str(dim), str(depth)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    measured = benchmark.pedantic(lambda: {name: fresh(*size) for name, size in SIZES.items()}, rounds=1)
    two_layers = {dim: measured[name]["seconds"] for name, (dim, depth) in SIZES.items() if depth == 2}
    slope = np.polyfit(np.log(list(two_layers)), np.log(list(two_layers.values())), 1)[0]
    benchmark.extra_info |= measured | {"exponent of the seconds in d, two layers": round(float(slope), 2)}
    assert all(row["evaluations"] > 0 for row in measured.values())
