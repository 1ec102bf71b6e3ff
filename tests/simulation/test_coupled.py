"""Modes of covariances that do not commute: where they rest, which decay, and when they are learnt."""

import numpy as np
import pytest
import torch
from helpers.reference import random_covariance
from helpers.remedies import drawn, fates

from dyncollapse import population_flow
from dyncollapse.simulation.build import build
from dyncollapse.simulation.dimensions import mode_dimensions
from dyncollapse.simulation.prediction import escape_times, outlook
from dyncollapse.simulation.presets import resolve

ROTATED = [[1.0, 0.3], [0.3, 0.4]]
DECAYING = [("infonce", "one-sided", 0.1), ("spectral", "two-sided", 0.4), ("vcreg", "one-sided", 0.4)]
BARLOW = [("barlow", "two-sided", 0.0), ("barlow", "two-sided", 0.1)]


@pytest.fixture
def saved(tmp_path):
    """Two covariances as files, in settings."""

    def save(data, aug):
        files = {"data_cov": str(tmp_path / "data.npy"), "aug_cov": str(tmp_path / "aug.npy")}
        for file, matrix in zip(files.values(), (data, aug), strict=True):
            np.save(file, np.asarray(matrix))
        return files

    return save


def drawn_covariances(generator):
    return random_covariance(generator, 4).numpy(), 0.5 * random_covariance(generator, 4).numpy()


@pytest.mark.parametrize(("loss", "views", "weight_decay"), DECAYING + BARLOW)
@pytest.mark.seeds(3)
def test_a_flow_rests_at_the_predicted_singular_values(loss, views, weight_decay, saved, generator):
    files = saved(*drawn_covariances(generator))
    outcome = drawn(**files, loss=loss, views=views, weight_decay=weight_decay, steps=100_000)
    rest, end = outcome.outlook.rest, outcome.ends["population"].singular_value[0]
    bounded = rest < 100  # one with hardly any signal needs longer
    torch.testing.assert_close(end[bounded].sort().values, rest[bounded].sort().values, rtol=1e-3, atol=1e-3)
    if weight_decay:
        assert int((rest > 0).sum()) == int(outcome.outlook.coupled.rest.alive.sum())


@pytest.mark.parametrize("dynamics", ["population", "sgd"])
@pytest.mark.parametrize(
    ("loss", "views", "weight_decay"),
    [("infonce", "one-sided", 0.3), ("spectral", "two-sided", 1.2), ("vcreg", "one-sided", 0.8)],
)
def test_a_mode_that_weight_decay_kills_has_decayed(loss, views, weight_decay, dynamics, saved):
    files = saved(ROTATED, np.diag([0.2, 0.5]))
    outcome = drawn(**files, loss=loss, views=views, weight_decay=weight_decay, dynamics=(dynamics,))
    assert fates(outcome) == ["alive", "decayed"]
    assert outcome.verdict.escapes == [None, None]
    assert fates(drawn(**files, loss=loss, views=views)) == ["alive", "alive"]  # without weight decay


@pytest.mark.parametrize("weight_decay", [0.02, 0.3])
def test_a_mode_at_the_threshold_is_dead_beside_weight_decay(weight_decay, saved):
    # 2 S - A has the determinant 1.8 * 0.2 - 0.6^2 = 0
    outcome = drawn(**saved(ROTATED, np.diag([0.2, 0.6])), weight_decay=weight_decay)
    assert fates(outcome) == ["alive", "dead"]


@pytest.mark.parametrize(("loss", "views", "weight_decay"), DECAYING + BARLOW)
@pytest.mark.seeds(3)
def test_modes_are_learnt_at_about_the_predicted_times(loss, views, weight_decay, saved, generator):
    settings = {"loss": loss, "views": views, "weight_decay": weight_decay, "init_scale": 0.01, "runs": 1}
    simulation = build(resolve(saved(*drawn_covariances(generator)) | settings))
    predicted, start = outlook(simulation), mode_dimensions(simulation.weights, simulation.task).singular_value
    times = torch.cat([torch.zeros(1), torch.logspace(-2, 3.5, 300)]).double()
    path = population_flow(
        simulation.weights, simulation.task, times, objective=simulation.objective, weight_decay=weight_decay
    )
    sizes = mode_dimensions((path.weights[0][:, 0],), simulation.task).singular_value
    for k, expected in enumerate(escape_times(simulation, predicted, start).tolist()):
        if 0 < predicted.rest[k] < 10:
            learnt = float(times[(sizes[:, k] ** 2 >= sizes[-1, k] ** 2 / 2).nonzero()[0, 0]])
            assert learnt / 4 < expected < learnt * 4
