"""What grows below an implicit method's tolerance: found by eigenvalues, in linear flows that are known exactly."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from dyncollapse.dynamics._unseen import (
    AGAIN,
    CLEARLY,
    FEW,
    SHARE,
    UNSEEN,
    Answer,
    Growth,
    Lookout,
    Sight,
    unseen_growth,
)

TOLERANCE, DURATION = 1e-8, 100.0


def turned(size, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]


def ask(values, components, duration=DURATION, slowest=None, **more):
    """Of dy / dt = A y with these eigenvalues, at the state with these components along its eigenvectors."""
    turn = turned(len(values))
    matrix = turn @ np.diag(values) @ turn.T
    velocity, tolerance = turn @ (np.array(values) * components), np.full(len(values), TOLERANCE)
    settings = {"duration": duration, "slowest": slowest or 1 / duration} | more
    return unseen_growth(lambda v: matrix @ v, velocity, tolerance, **settings), turn


@pytest.mark.parametrize("size", [1, 2, 5, 40])
@pytest.mark.parametrize("component", [1e-8, 1e-10, -1e-12])
def test_its_rate_and_the_time_until_it_is_seen_are_exact_where_all_else_rests(component, size):
    values = [0.5, *-np.geomspace(1e-3, 30, size - 1)]
    found, turn = ask(values, [component, *1e-6 * np.ones(size - 1)])
    assert found.growth.rate == pytest.approx(0.5, rel=1e-6)
    seen = CLEARLY * TOLERANCE / (abs(component) * np.abs(turn[:, 0]).max())
    assert found.growth.wait == pytest.approx(math.log(seen) / 0.5, rel=1e-3)
    assert found.products <= size


@pytest.mark.parametrize(
    ("values", "components", "duration"),
    [
        ([0.5, -1.0, -2.0], [1e-4, 1.0, 1.0], 100),  # seen
        ([0.5, -1.0, -2.0], [1e-10, 1.0, 1.0], 10),  # e^5 times 1e-10 is not seen at the end either
        ([0.5, -1.0, -2.0], [0.0, 1.0, 1.0], 5),  # nor does round-off come so far in that time
        ([0.0, -1.0, -2.0], [1e-10, 1.0, 1.0], 1e6),
        ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], 100),
        ([2.0, 2.0, 2.0], [1.0, 1.0, 1.0], 100),  # one eigenvalue: its directions cannot be told apart
    ],
)
def test_what_is_seen_small_or_at_rest_does_not_count(values, components, duration):
    found, _ = ask(values, components, duration)
    assert found.growth is None
    assert found.sure


@pytest.mark.parametrize(("slowest", "counts"), [(0.4, True), (0.6, False)])
def test_what_grows_little_in_a_step_does_not_count(slowest, counts):
    assert (ask([0.5, -1.0], [1e-10, 1.0], slowest=slowest)[0].growth is not None) is counts


def test_what_is_exactly_zero_and_still_does_not_count():
    turn = np.zeros((5, 5))
    turn[:2, :2], turn[2:, 2:] = turned(2), turned(3, 1)
    matrix = turn @ np.diag([0.5, 0.3, -1.0, -2.0, -3.0]) @ turn.T
    velocity = turn @ np.array([0.0, 0.0, 1e-3, 1.0, 1.0])
    settings = {"tolerance": np.full(5, TOLERANCE), "duration": 1e6, "slowest": 1e-6}
    found = unseen_growth(lambda v: matrix @ v, velocity, still=np.arange(5) < 2, **settings)
    assert (found.growth, found.sure, found.stable) == (None, True, False)
    moving = velocity + 1e-14 * turn[:, 0]
    assert unseen_growth(lambda v: matrix @ v, moving, still=np.zeros(5, dtype=bool), **settings).growth is not None


@pytest.mark.parametrize(("rate", "stable"), [(0.5, False), (0.005, True), (0.0, True), (-1.0, True)])
def test_it_says_whether_nothing_grows(rate, stable):
    found, _ = ask([rate, -2.0, -3.0], [1.0, 1.0, 1.0])
    assert (found.growth, found.sure, found.stable) == (None, True, stable)


def test_one_that_is_unseen_is_found_among_those_that_are_seen():
    found, _ = ask([2.0, 1.0, 0.3, 0.2, -5.0], [1e-2, 1.0, 1e-11, 1e-3, 1.0])
    assert found.growth.rate == pytest.approx(0.3, rel=1e-6)


def test_growth_is_found_behind_many_decays_in_few_products():
    size = 2000
    values = np.concatenate([[0.3, 0.1], -np.random.default_rng(1).choice([0, 1e-3, 1.0, 30.0], size - 2)])
    vectors = np.ones(size)
    vectors[:2] = 1e-11, 1.0
    tolerance = np.full(size, TOLERANCE)
    found = unseen_growth(lambda v: values * v, values * vectors, tolerance, duration=DURATION, slowest=0.01)
    assert found.growth.rate == pytest.approx(0.3, rel=1e-4)
    assert found.products < 30


def test_it_says_when_products_ran_out():
    values = [0.3, *-np.geomspace(1e-3, 30, 99)]
    found, _ = ask(values, np.ones(100), most=6)
    assert found == Answer(None, False, 6)


@pytest.mark.parametrize("entry", [np.nan, np.inf])
def test_a_derivative_that_is_not_finite_tells_nothing(entry):
    with np.errstate(invalid="ignore"):
        found = unseen_growth(lambda v: v * entry, np.ones(2), np.ones(2), duration=1.0, slowest=1.0)
    assert found == Answer(None, False, 0)


# --- When it is looked for


class Script:
    """Answers in turn, and notes when and for how long it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def unseen(self, t, _y, duration, step, most):
        self.asked.append((t, duration, step, most))
        growth = self.answers.pop(0) if self.answers else None
        return Answer(None if growth == STABLE else growth, True, 10, stable=growth == STABLE)


SLOW, FAST, STABLE = Growth(1e-3, 1e4, 1e6), Growth(1e-3, 1e4, 1.0), "nothing grows"


def outlook(answers, times, work=1000, end=100.0):
    """A lookout after steps that end at these times, each of so much work."""
    watch = SimpleNamespace(last=None, end=end, evaluations=0, products=0, most_evaluations=10**6, switched={})
    watch.is_done = lambda: watch.last[0] == end
    script = Script(*answers)
    lookout, left = Lookout(script, watch), []
    for t in times:
        watch.last, watch.products = (t, None), watch.products + work
        left.append(lookout.leaves())
    return lookout, script.asked, left, watch.switched.get(UNSEEN)


def test_it_looks_after_growing_times_and_from_the_last_look_to_the_end():
    _, asked, left, _ = outlook([], [1.0, 1.5, 2.0, 3.9, 4.1, 99.0, 100.0])
    expected = [(1, 100, 1), (2, 99, 0.5), (4.1, 98, 1.9), (99, 95.9, 94.9), (100, 1, 1)]  # and the longest step since
    np.testing.assert_allclose([where for *where, _ in asked], expected)
    assert not any(left)
    assert pytest.approx(2) == AGAIN


def test_it_takes_a_share_of_the_products_and_looks_at_the_end_in_any_case():
    work = 10 / SHARE / 2.5  # of a step; 2.5 steps pay for one look
    _, asked, *_ = outlook([], [*2.0 ** np.arange(10), 1000.0], work, end=1000.0)
    assert [t for t, *_ in asked] == [1.0, 4.0, 16.0, 128.0, 512.0, 1000.0]
    assert {most for *_, most in asked} == {FEW}
    _, asked, *_ = outlook([], [1.0, 2.0], work=2 * FEW / SHARE)
    assert [most for *_, most in asked] == [2 * FEW, 4 * FEW - 10]


def line(state, rates):
    """What is seen of dy_i / dt = rates_i y_i at rtol 1e-8."""
    rates = np.array(rates)
    along = SimpleNamespace(times=lambda v: rates * v)
    field = SimpleNamespace(velocity=lambda _t, y: rates * y, linearise=lambda _t, _y: along)
    return lambda duration, step: Sight(field, np.ones(len(state)), 1e-8, np.full(len(state), 1e-8)).unseen(
        0.0, np.array(state), duration, step
    )


@pytest.mark.parametrize(("moving", "counts"), [(1e-4, True), (1e-2, True), (0.2, False), (1.0, False)])
def test_growth_in_short_steps_counts_where_the_flow_is_quiet(moving, counts):
    # The rate is 0.5, and the first entry moves at its own size.
    look = line([1.0, 1e-10], [-moving, 0.5])
    assert (look(100.0, 0.01).growth is not None) is counts
    assert look(100.0, 3.0).growth is not None  # by more than e in one step


def test_a_step_or_an_end_that_round_off_took_away_is_no_time_to_grow():
    look = line([1.0, 1e-10], [-1.0, 0.5])
    assert look(100.0, 3.0).growth is not None
    assert look(0.0, 3.0).growth is None
    assert look(100.0, 0.0).growth is None


@pytest.mark.parametrize(("scale", "counts"), [(1e-10, True), (1e-3, False)])
def test_tolerances_may_be_loosened_to_those_of_the_largest_weight(scale, counts):
    field = SimpleNamespace(velocity=lambda _t, y: y)
    tight = Sight(field, np.ones(2), 1e-8, np.full(2, scale))
    assert tight.tolerances(np.array([2.0, 0.0])).tolist() == [scale, scale]
    loose = Sight(field, np.ones(2), 1e-8, np.full(2, scale), 0.01)
    assert (loose.tolerances(np.array([-2.0, 0.0])) == pytest.approx([2e-10, 2e-10])) is counts


def test_what_can_be_followed_is_left_at_once():
    lookout, _, left, told = outlook([None, FAST], [1.0, 2.0])
    assert left == [False, True]
    assert lookout.left
    assert told is None


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([SLOW, None, SLOW, None], None),
        ([None, SLOW, SLOW, None], 4.0),
        ([None, None, None, SLOW], 100.0),
        ([SLOW, SLOW, None, None], 2.0),
        ([SLOW, SLOW, STABLE, None], None),
        ([SLOW, SLOW, STABLE, SLOW], 100.0),
    ],
)
def test_what_is_too_slow_to_follow_is_told_unless_it_lasted_for_a_moment(answers, told):
    _, _, left, found = outlook(answers, [1.0, 2.0, 4.0, 100.0])
    assert not any(left)
    assert found == told


def test_what_was_tried_to_follow_is_told_if_it_is_still_there():
    watch = SimpleNamespace(last=(1.0, None), end=9.0, evaluations=0, products=0, most_evaluations=10**6, switched={})
    watch.is_done = lambda: watch.last[0] == 9
    lookout = Lookout(Script(FAST, FAST), watch)
    lookout.stays, watch.last = True, (4.0, None)
    assert not lookout.leaves()
    watch.last = (9.0, None)
    assert not lookout.leaves()
    assert watch.switched == {UNSEEN: 9.0}
