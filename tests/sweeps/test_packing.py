import pytest
import torch

from dyncollapse.dynamics.training import Diverged
from dyncollapse.simulation.build import build
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.run import run
from dyncollapse.sweeps.packing import best_runs, packs, train_together

SMALL = {"dim": 4, "batch_size": 8, "pool": 32, "steps": 40, "runs": 2, "dynamics": ("sgd",)}


def points(*givens):
    return [resolve({**SMALL, **given}) for given in givens]


def test_points_share_an_ensemble_when_only_start_and_data_differ():
    alike = points(
        {},
        {"seed": 1},
        {"aug_strength": 0.5},
        {"aug_dim": 1},
        {"data_var": 1.0},
        {"pool": 0},
        {"init": "spectrum"},
        {"init_scale": 0.2},
        {"runs": 3},
    )
    unlike = points(
        {"lr": 0.2},
        {"steps": 41},
        {"depth": 2},
        {"dim": 6},
        {"batch_size": 9},
        {"loss": "dot"},
        {"momentum": 0.5},
        {"views": "two-sided"},
        {"bias": True},
        {"activation": "relu"},
        {"dtype": "float32"},
        {"dynamics": ("sgd", "flow")},
    )
    assert packs(alike + unlike, 100) == [alike, *([point] for point in unlike)]


def test_packs_are_filled_in_order_and_no_point_is_parted():
    found = packs(points(*({"seed": seed, "runs": runs} for seed, runs in enumerate((2, 2, 3, 9, 1)))), 5)
    assert [[c.runs for c in pack] for pack in found] == [[2, 2], [3], [9], [1]]
    assert packs([], 5) == []


def test_points_without_sgd_stay_alone():
    assert len(packs(points(*({"seed": seed, "dynamics": ("flow",)} for seed in range(3))), 100)) == 3


def test_larger_batches_and_dimensions_make_smaller_ensembles():
    sizes = [best_runs(resolve({"batch_size": n, "dim": d})) for n, d in ((16, 16), (128, 16), (128, 64), (4096, 16))]
    assert sizes == [128, 16, 4, 1]
    assert best_runs(resolve({"device": "cuda"})) > sizes[1]


@pytest.mark.parametrize(
    "shared",
    [
        {},
        {"depth": 3, "momentum": 0.5, "views": "two-sided", "lr": 0.02},
        {"loss": "dot", "bias": True, "lr": 0.01},
        {"loss": "ntxent", "activation": "relu", "depth": 2},
        {"loss": "vicreg", "invariance": 0.5},
        {"dtype": "float32"},
    ],
)
def test_a_packed_point_is_what_it_is_alone(shared):
    own = {"pool": 0}, {"seed": 1, "runs": 1}, {"aug_strength": 3.0, "aug_dim": 1}, {"init_scale": 0.3, "runs": 3}
    simulations = [build(resolve({**SMALL, **shared, **given})) for given in own]
    for simulation, together in zip(simulations, train_together(simulations), strict=True):
        alone = run(simulation, lambda *_: None, lambda _: None).trajectories["sgd"]
        assert torch.equal(alone.time, together.time)
        # The same products of matrices in larger batches: equal up to the rounding of each step, which steps carry on.
        eps = torch.finfo(alone.weights[0].dtype).eps
        for one, other in zip((*alone.weights, *alone.biases), (*together.weights, *together.biases), strict=True):
            assert one.shape == other.shape
            assert not torch.equal(one[0], one[-1])
            assert float((one - other).abs().max()) <= 40 * 8 * eps * float(one.abs().max())
        assert torch.allclose(alone.loss, together.loss, rtol=1e-4 if eps > 1e-10 else 1e-10)


def test_seconds_are_shared_by_runs():
    one, three = train_together([build(c) for c in points({"runs": 1}, {"seed": 1, "runs": 3})])
    assert three.meta["seconds"] == pytest.approx(3 * one.meta["seconds"])
    assert one.meta.keys() == three.meta.keys()


def test_one_that_diverges_stops_its_ensemble():
    with pytest.raises(Diverged):
        train_together([build(c) for c in points({}, {"aug_strength": 1e6})])


def test_a_point_is_held_to_its_own_bound(monkeypatch):
    # Without noise and far apart, the samples of `calm` exert no force; its start lets the ensemble grow to 1e9.
    calm, wild = (
        build(resolve({**SMALL, "steps": 1, "lr": 1e8, **given}))
        for given in ({"init_scale": 1e3, "aug_strength": 0.0}, {"aug_strength": 3.0})
    )
    run(calm, lambda *_: None, lambda _: None)
    with pytest.raises(Diverged):
        run(wild, lambda *_: None, lambda _: None)
    with pytest.raises(Diverged):
        train_together([calm, wild])
    monkeypatch.setattr("dyncollapse.sweeps.packing.check_bound", lambda *_: None)
    train_together([calm, wild])
