"""Sample flows that turn out stiff: CVODE goes on where stability, and not accuracy, keeps explicit steps short."""

import importlib.util
import itertools
import math
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dyncollapse import (
    FlowFailed,
    GaussianTask,
    Interrupted,
    Objective,
    Pairs,
    gaussian_init,
    sample_flow,
    stack_pairs,
)
from dyncollapse.dynamics import _cvode
from dyncollapse.dynamics._stiffness import AGAIN, FIRST, LEFT, Stiffness
from dyncollapse.dynamics._unseen import Answer, Sight

TIMES = [0.0, 0.5, 10.0, 60.0]
PAST_SADDLE = [100.0, 650.0]  # the last mode escapes at about 560


def problem(loss="dot", depth=1, runs=()):
    generator = torch.Generator().manual_seed(0)
    weights = gaussian_init([4] * (depth + 1), generator, runs, 1.0 if loss == "ntxent" else 0.3)
    task = GaussianTask.block(4, 2, 1.5, views="two-sided")
    return weights, stack_pairs([task.sample(16, generator, runs) for _ in range(2)])


@cache
def explicit(loss, depth):
    """Where the explicit method ends, taken once for all tests, none of which changes it."""
    weights, pairs = problem(loss, depth)
    until = [0.0, 0.5, 10.0, 100.0] if loss == "ntxent" else TIMES
    return sample_flow(weights, pairs, until, objective=Objective(loss), method="DOP853")


@cache
def explicit_past_saddle():
    weights, pairs = saddle(1e-20)
    return sample_flow(weights, pairs, PAST_SADDLE, objective=Objective("dot"), method="DOP853")


@pytest.mark.parametrize(
    ("loss", "depth"), [("dot", 1), ("dot", 2), ("ntxent", 1), ("spectral", 2), ("vcreg", 1), ("barlow", 2)]
)
def test_cvode_goes_on_and_reaches_what_the_explicit_method_does(loss, depth):
    weights, pairs = problem(loss, depth)
    other = explicit(loss, depth)
    until = other.time.tolist()
    path = sample_flow(weights, pairs, until, objective=Objective(loss))
    assert (path.meta["method"], path.meta["stiff_method"]) == ("DOP853", "CVODE")
    assert 0.5 < path.meta["stiff_from"] < until[-1]
    assert path.meta["evaluations"] + path.meta["jacobian_products"] < other.meta["evaluations"]
    assert path.meta["jacobian_products"] > 0
    assert path.time.tolist() == until
    assert torch.equal(path.product[:2], other.product[:2])  # before it was stiff
    torch.testing.assert_close(path.product, other.product, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(path.loss, other.loss, rtol=1e-7, atol=1e-9)


def test_what_is_not_stiff_is_left_to_the_explicit_method():
    weights, pairs = problem("infonce", 2)
    path = sample_flow(weights, pairs, 20.0)
    assert path.meta["method"] == "DOP853"
    assert "stiff_from" not in path.meta
    assert "jacobian_products" not in path.meta


def test_a_method_that_was_asked_for_goes_to_the_end():
    path = explicit("dot", 1)
    assert path.meta["method"] == "DOP853"
    assert path.meta["evaluations"] > 12 * FIRST


def test_without_scikit_sundae_the_explicit_method_goes_to_the_end(monkeypatch):
    weights, pairs = problem()
    find = importlib.util.find_spec
    monkeypatch.setattr(_cvode, "find_spec", lambda name: None if name == "sksundae" else find(name))
    assert sample_flow(weights, pairs, TIMES, objective=Objective("dot")).meta["method"] == "DOP853"


@pytest.mark.parametrize("threads", [1, 2])
def test_every_run_changes_the_method_where_it_is_stiff_itself(threads):
    weights, pairs = problem(runs=(2,))
    calm = weights[0].clone()
    calm[1] = 1e-140  # which stays at its start
    path = sample_flow((calm,), pairs, TIMES, objective=Objective("dot"), threads=threads)
    own = Pairs(pairs.anchor[:, 0], pairs.positive[:, 0], pairs.views)
    first = sample_flow((calm[0],), own, TIMES, objective=Objective("dot"))
    assert torch.equal(path.product[:, 0], first.product)
    assert (path.meta["method"], path.meta["stiff_method"]) == ("DOP853", "CVODE")
    assert path.meta["stiff_from"] == first.meta["stiff_from"]
    assert path.meta["jacobian_products"] >= first.meta["jacobian_products"]


def test_progress_goes_on_and_ctrl_c_keeps_what_both_methods_reached():
    weights, pairs = problem()
    seen = []

    def stopped(t, _end):
        seen.append(t)
        if t > 20:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as interrupted:
        sample_flow(weights, pairs, TIMES, objective=Objective("dot"), progress=stopped)
    path = interrupted.value.trajectory
    assert seen == sorted(seen)
    assert path.time.tolist() == TIMES[:3]
    assert (path.meta["method"], path.meta["stiff_method"]) == ("DOP853", "CVODE")
    assert path.meta["stiff_from"] in seen


def test_an_allowance_counts_the_evaluations_of_both():
    weights, pairs = problem()
    whole = sample_flow(weights, pairs, TIMES, objective=Objective("dot")).meta["evaluations"]
    with pytest.raises(FlowFailed, match=f"all {whole - 5} evaluations .*rtol or atol, or raise max_evaluations"):
        sample_flow(weights, pairs, TIMES, objective=Objective("dot"), max_evaluations=whole - 5)


def saddle(scale):
    """Two layers, of which the first is tiny: modes below the round-off of the others' weights grow for long."""
    pairs = GaussianTask.block(3, 1, aug_strength=2.0).sample(16, torch.Generator().manual_seed(0))
    layer = 0.3 * torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (scale * layer, layer), pairs


def test_modes_that_grow_from_below_the_tolerance_escape_on_time():
    weights, pairs = saddle(1e-20)
    path, other = sample_flow(weights, pairs, PAST_SADDLE, objective=Objective("dot")), explicit_past_saddle()
    torch.testing.assert_close(path.product, other.product, rtol=1e-6, atol=1e-6)
    assert (other.singular_values[-1] > 0.3).all()


def test_what_cvode_stepped_over_is_taken_back(monkeypatch):
    weights, pairs = saddle(1e-20)
    asked = []

    def careless(self, t, y, *rest, careful=Sight.unseen):
        asked.append(t)
        return careful(self, t, y, *rest) if len(asked) > 1 else Answer(None, True, 0)

    monkeypatch.setattr(Sight, "unseen", careless)
    path, other = sample_flow(weights, pairs, PAST_SADDLE, objective=Objective("dot")), explicit_past_saddle()
    assert asked[0] < 50  # where CVODE begins; then after steps of it
    torch.testing.assert_close(path.product, other.product, rtol=1e-6, atol=1e-6)
    assert path.meta.get("stiff_from", math.inf) > asked[1]
    assert path.meta["jacobian_products"] > 0


def test_a_mode_that_dies_is_not_followed_below_round_off():
    generator = torch.Generator().manual_seed(476302)
    pairs = GaussianTask.block(2, 1, aug_strength=0.89).sample(16, generator)
    weights = (0.195 * torch.randn(4, 2, generator=generator, dtype=torch.float64),)
    path, other = (sample_flow(weights, pairs, 300.0, objective=Objective("vcreg"), method=m) for m in (None, "DOP853"))
    assert path.meta["evaluations"] + path.meta["jacobian_products"] < other.meta["evaluations"]
    torch.testing.assert_close(path.product, other.product, rtol=1e-6, atol=1e-8)


def test_the_explicit_method_goes_on_where_cvode_takes_longer(monkeypatch):
    weights, pairs = problem()
    leaves = Stiffness.leaves

    def hopeless(self, solver):
        left = leaves(self, solver)
        self.expected = 100
        return left

    monkeypatch.setattr(Stiffness, "leaves", hopeless)
    path, other = sample_flow(weights, pairs, TIMES, objective=Objective("dot")), explicit("dot", 1)
    assert path.meta["stiff_from"] < path.meta["stiff_until"] < TIMES[-1]
    assert path.time.tolist() == TIMES
    torch.testing.assert_close(path.product, other.product, rtol=1e-6, atol=1e-7)


# --- The question itself


class Linear:
    """dy / dt = A y as solvers see it, with two units of time in a tick."""

    def __init__(self, matrix):
        self.vector = SimpleNamespace(start=np.ones(len(matrix)))
        along = SimpleNamespace(times=lambda v: matrix @ v)
        self.field = SimpleNamespace(velocity=lambda _t, y: matrix @ y, linearise=lambda _t, _y: along)

    def time(self, tick):
        return 2.0 * tick

    def tick(self, t):
        return t / 2

    def pace(self, _tick):
        return 2.0


def leaves(matrix, step, left, asked=FIRST, y=1.0, after=0.0, tick=100.0):
    """Whether any of so many steps at this tick is the last."""
    problem = Linear(matrix)
    stiffness = Stiffness(problem, Sight(problem.field, np.ones(len(matrix)), 1e-8, np.zeros(len(matrix))), after)
    solver = SimpleNamespace(t=tick, y=y * np.ones(len(matrix)), step_size=step, t_bound=tick + left * step)
    return any(stiffness.leaves(solver) for _ in range(asked))


@pytest.mark.parametrize(("step", "stiff"), [(0.01, False), (0.19, False), (0.21, True), (1.0, True)])
def test_steps_are_compared_with_the_largest_decay(step, stiff):
    # In time, which is twice the ticks, the largest decay is 10: steps of 0.2 ticks are 4 of its lengths.
    assert leaves(np.diag([-10.0, -1.0, 0.0]), step, 2 * LEFT) is stiff


def test_growth_is_no_stiffness():
    assert not leaves(np.diag([10.0, -1.0]), 1.0, 2 * LEFT)


UNSEEN = np.array([1.0, 1.0, 1e-10])
TURN = np.linalg.qr(np.arange(9.0).reshape(3, 3) ** 2 + np.eye(3))[0]


@pytest.mark.parametrize(("rate", "stays"), [(1.0, True), (0.1, True), (0.03, False), (-0.1, False)])
def test_a_flow_in_which_something_grows_unseen_is_left_to_the_explicit_method(rate, stays):
    # 100 steps of a tick are 200 units of time: 0.03 gives a factor of e^6, and 1e-10 stays small.
    assert leaves(TURN @ np.diag([-10.0, -1.0, rate]) @ TURN.T, 1.0, 100, y=TURN @ UNSEEN) is not stays


@pytest.mark.parametrize(("tick", "stays"), [(1.0, False), (2.0, True)])
def test_growth_in_less_than_the_time_that_went_by_does_not_count(tick, stays):
    matrix = TURN @ np.diag([-10.0, -1.0, 0.4]) @ TURN.T  # 1 / 0.4 is between 2 and 4
    assert leaves(matrix, 1.0, 100, y=TURN @ UNSEEN, tick=tick) is not stays


def test_what_is_seen_may_grow():
    assert leaves(TURN @ np.diag([-10.0, -1.0, 1.0]) @ TURN.T, 1.0, 100, y=TURN @ np.ones(3))


@pytest.mark.parametrize(("after", "left"), [(199, True), (201, False)])  # tick 100 is time 200
def test_it_is_not_left_before_what_was_not_seen_last_time(after, left):
    assert leaves(np.diag([-10.0, -1.0]), 1.0, 2 * LEFT, after=after) is left


def test_few_steps_that_are_left_and_few_that_were_taken_are_not_worth_it():
    matrix = np.diag([-10.0, -1.0])
    assert leaves(matrix, 1.0, LEFT + 1)
    assert not leaves(matrix, 1.0, LEFT - 1)
    assert not leaves(matrix, 1.0, 2 * LEFT, FIRST - 1)


def test_it_is_looked_into_ever_less_often():
    products = []
    problem = Linear(-np.eye(2))
    problem.field.linearise = lambda _t, _y: products.append(solver.t) or SimpleNamespace(times=np.negative)
    sight = Sight(problem.field, np.ones(2), 1e-8, np.zeros(2))
    stiffness, solver = Stiffness(problem, sight), SimpleNamespace(t=0, y=np.ones(2), step_size=1.0, t_bound=1e9)
    for solver.t in range(1, 2001):
        assert not stiffness.leaves(solver)
    assert products[0] == FIRST
    assert all(later == math.ceil(AGAIN * earlier) for earlier, later in itertools.pairwise(products))
    assert len(products) <= 2 + math.log(2000 / FIRST) / math.log(AGAIN)


@pytest.mark.parametrize("entry", [0.0, np.nan, -np.inf])
def test_a_derivative_that_vanishes_or_is_not_finite_is_not_stiff(entry):
    with np.errstate(invalid="ignore"):
        assert not leaves(np.full((2, 2), entry), 1.0, 2 * LEFT)
