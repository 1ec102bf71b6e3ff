"""Population flows past saddles: modes that grow from below the tolerance, which an implicit method steps over."""

import warnings
from functools import cache

import pytest
import torch

from dyncollapse import (
    GaussianTask,
    Interrupted,
    Objective,
    SelfDistillation,
    balanced_predictor,
    population_flow,
    sample_flow,
)
from dyncollapse.dynamics._unseen import Growth, Lookout, Sight

TIMES = [0.0, 1.0, 20.0, 200.0, 2000.0]


def tilted(first, second):
    """Two layers of these sizes, whose modes are no entries, and a task with eigenvalues 0.06, 1.07 and 1.57."""
    layers = [torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)).double() for seed in (1, 2)]
    factor = torch.randn(3, 3, generator=torch.Generator().manual_seed(5)).double()
    task = GaussianTask(factor @ factor.T / 3, 0.2 * torch.eye(3).double(), "two-sided")
    return (0.3 * first * layers[0], 0.3 * second * layers[1]), task


@cache
def past_saddle():
    """What becomes of modes of 1e-10, from here on where several tests look at it, none of which changes it."""
    return population_flow(*tilted(1e-10, 1.0), TIMES, objective=Objective("dot"))


def both(weights, task, loss, times=TIMES, **options):
    return (
        population_flow(weights, task, times, objective=Objective(loss), method=m, **options) for m in (None, "DOP853")
    )


@pytest.mark.parametrize(("loss", "until"), [("dot", 4e3), ("infonce", 4e4)])
@pytest.mark.parametrize("scales", [(1.0, 1e-10), (1e-10, 1.0)])
def test_it_ends_at_rest_where_layers_of_one_size_do(loss, until, scales):
    path, other = (population_flow(*tilted(*sizes), until, objective=Objective(loss)) for sizes in (scales, (1.0, 1.0)))
    torch.testing.assert_close(path.singular_values, other.singular_values, rtol=1e-5, atol=0)
    assert (path.meta["method"], other.meta["method"]) == ("DOP853", "CVODE")
    assert path.meta["rest_time"] > 10 * other.meta["rest_time"]


def test_escapes_are_delayed_by_the_logarithm_of_the_start():
    rests = []
    for first in (1e-8, 1e-10, 1e-12):
        weights, task = tilted(first, 1.0)
        rests.append(population_flow(weights, task, 3e3, objective=Objective("dot")).meta["rest_time"])
    assert rests[2] - rests[1] == pytest.approx(rests[1] - rests[0], rel=0.005)


@pytest.mark.parametrize(("loss", "depth"), [("dot", 2), ("dot", 3), ("spectral", 3), ("barlow", 2)])
def test_an_explicit_method_agrees(loss, depth):
    weights, task = tilted(1e-11, 1.0)
    layers = (*weights, torch.eye(3, dtype=torch.float64))[:depth]
    path, other = both(layers, task, loss, [10.0, 100.0])
    torch.testing.assert_close(path.product, other.product, rtol=1e-3, atol=1e-4)


def test_cvode_alone_stays_which_is_why_it_is_not_alone():
    weights, task = tilted(1e-10, 1.0)
    path = population_flow(weights, task, 2000.0, objective=Objective("dot"), method="CVODE")
    assert (path.singular_values[-1] > 0.1).sum() == 2
    assert path.meta["method"] == "CVODE"


def test_cvode_goes_on_where_everything_is_seen_again():
    path = past_saddle()
    assert path.time.tolist() == TIMES
    assert (path.meta["method"], path.meta["stiff_method"]) == ("DOP853", "CVODE")
    assert 100 < path.meta["stiff_from"] < path.meta["rest_time"]
    assert path.meta["jacobian_products"] > 0
    assert path.meta["evaluations"] < 80_000  # DOP853 takes 126 000


@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-4])
def test_layers_of_one_size_are_left_to_cvode(size):
    weights, task = tilted(size, size)
    for loss in ("dot", "infonce", "spectral"):
        path = population_flow(weights, task, 10 / size**2, objective=Objective(loss))
        assert path.meta["method"] == "CVODE"


def test_runs_are_watched_one_by_one():
    (small, task), (ordinary, _) = tilted(1e-10, 1.0), tilted(1.0, 1.0)
    weights = tuple(torch.stack(layers) for layers in zip(ordinary, small, strict=True))
    path = population_flow(weights, task, TIMES, objective=Objective("dot"))
    for run, alone in enumerate((population_flow(ordinary, task, TIMES, objective=Objective("dot")), past_saddle())):
        assert torch.equal(path.product[:, run], alone.product)
    assert (path.meta["method"], path.meta["stiff_method"]) == ("DOP853", "CVODE")
    assert path.meta["stiff_from"] == alone.meta["stiff_from"]


def with_zero_row(loss):
    layer = 0.5 * torch.randn(4, 4, generator=torch.Generator().manual_seed(1)).double()
    layer[1] = 0
    return (layer,), GaussianTask.block(4, 2, 1.5), loss


def with_diagonal_layers(loss):
    layers = [torch.diag(torch.tensor(entries).double()) for entries in ([0.9, 0.05, 0.3, 0.7], [0.7, 0.1, 0.1, 0.6])]
    return tuple(layers), GaussianTask.block(4, 1, 0.5, views="two-sided"), loss


def with_zero_layer(loss):
    layers = [0.3 * size * torch.eye(4).double() for size in (0, 1)]
    return tuple(layers), GaussianTask.block(4, 2, 0.2), loss


@pytest.mark.parametrize("start", [with_zero_row, with_diagonal_layers, with_zero_layer])
@pytest.mark.parametrize("loss", ["dot", "infonce", "spectral", "vcreg"])
def test_what_is_exactly_zero_stays_without_a_word(start, loss):
    weights, task, loss = start(loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = population_flow(weights, task, 1e5, objective=Objective(loss))
    assert path.meta["method"] == "CVODE"
    assert path.meta["evaluations"] < 5000


@pytest.mark.parametrize(("size", "allowed"), [(10.0, 10_000), (1000.0, 30_000)])
def test_starts_that_are_far_too_large_are_left_to_cvode_after_a_while(size, allowed):
    layer = size * torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double()
    task, start = GaussianTask.block(3, 1, 1.0, views="two-sided"), (layer, layer.T.clone())
    path, alone = (population_flow(start, task, 1e4, method=m, max_evaluations=allowed) for m in (None, "CVODE"))
    torch.testing.assert_close(path.product, alone.product, rtol=1e-4, atol=1e-6)


def test_what_would_take_too_long_to_follow_is_told(monkeypatch):
    weights, task = tilted(1e-10, 1.0)
    monkeypatch.setattr(Growth, "evaluations", lambda *_: 3e7)
    message = r"from t = \d.* grew from below the tolerance.* may have stayed at a saddle.* raise max_evaluations"
    with pytest.warns(UserWarning, match=message):
        path = population_flow(weights, task, 2000.0, objective=Objective("dot"))
    assert path.meta["method"] == "CVODE"
    assert 1 < path.meta["unseen_from"] < 100


@pytest.mark.parametrize("allowed", [20_000, 40_000])
def test_what_took_too_long_to_follow_is_told_and_left_to_cvode(allowed):
    weights, task = tilted(1e-10, 1.0)
    with pytest.warns(UserWarning, match="may have stayed at a saddle"):
        path = population_flow(weights, task, TIMES, objective=Objective("dot"), max_evaluations=allowed)
    alone = population_flow(weights, task, TIMES, objective=Objective("dot"), method="CVODE")
    torch.testing.assert_close(path.product, alone.product, rtol=1e-5, atol=1e-7)
    assert path.time.tolist() == TIMES
    assert path.meta["method"] == "CVODE"
    assert path.meta["evaluations"] < allowed


def test_what_is_found_at_the_end_and_takes_too_long_to_follow_is_told(monkeypatch):
    weights, task = tilted(1e-10, 1.0)
    leaves = Lookout.leaves
    monkeypatch.setattr(Lookout, "leaves", lambda self: self._watch.is_done() and leaves(self))
    with pytest.warns(UserWarning, match="from t = 2000 on something grew"):
        path = population_flow(weights, task, TIMES, objective=Objective("dot"), max_evaluations=10_000)
    assert path.time.tolist() == TIMES


def test_ctrl_c_keeps_what_was_reached_on_the_second_way():
    weights, task = tilted(1e-10, 1.0)
    whole, seen = past_saddle(), []

    def stopped(t, _end):
        back = len(seen) > 1 and (seen[-1] < seen[-2] or seen != sorted(seen))
        seen.append(t)
        if back and t > 20:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as interrupted:
        population_flow(weights, task, TIMES, objective=Objective("dot"), progress=stopped)
    assert seen != sorted(seen)  # it went back
    torch.testing.assert_close(interrupted.value.trajectory.product, whole.product[:3], rtol=1e-6, atol=1e-9)


def test_a_first_step_that_makes_a_matrix_singular_is_taken_again_shorter():
    generator = torch.Generator().manual_seed(8)  # DOP853 takes over where this flow hardly moves
    weights = tuple(s * torch.randn(8, 8, generator=generator).double() / 8**0.5 * 0.7 for s in (1e-10, 1.0))
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator).double())[0]
    values = 1 + 0.5 * torch.rand(8, generator=generator).double()
    values[0] = 0.06
    task = GaussianTask((turn * values) @ turn.T, 0.2 * torch.eye(8).double(), "two-sided")
    path = population_flow(weights, task, 3e4)
    assert path.meta["method"] == "DOP853"
    assert path.time.tolist() == [3e4]


def test_flows_that_descend_nothing_are_not_watched(monkeypatch):
    def asked(*_args):
        raise AssertionError

    monkeypatch.setattr(Sight, "unseen", asked)
    weights, task = tilted(1.0, 1.0)
    pairs = task.sample(32, torch.Generator().manual_seed(0))
    settings = {"objective": SelfDistillation(1.0), "predictor": balanced_predictor(weights)}
    for path in (population_flow(weights, task, 500.0, **settings), sample_flow(weights, pairs, 500.0, **settings)):
        assert "stiff_from" not in path.meta
