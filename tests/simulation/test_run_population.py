import pytest
from helpers.simulation import SMALL, as_json, diagonal, simulate

from dyncollapse import Trajectory, relative_distance
from dyncollapse.commands.simulate import print_outcome
from dyncollapse.simulation.build import build
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.prediction import MOST_PAIRS
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.report import report


@pytest.mark.parametrize(
    ("given", "effective"),
    [
        ({}, True),
        ({"views": "two-sided"}, True),
        ({"preset": "authors-code", "case": 2}, False),
        ({"loss": "spectral", "lr": 0.01}, False),
    ],
)
def test_population_limit_is_reported_where_it_has_a_closed_form(given, effective):
    found = as_json(simulate(**given))
    for name in ("sgd", "flow"):
        limit = found["dynamics"][name]["population_limit"]
        assert set(limit) == {"negatives_needed", "valid", "effective_negatives"}
        needed, counted = limit["negatives_needed"], limit["effective_negatives"]
        assert isinstance(limit["valid"], bool)
        assert not limit["valid"] or 10 * needed <= 16
        assert (1 <= counted <= 16) if effective else counted is None


@pytest.mark.parametrize("given", [{"loss": "ntxent"}, {"activation": "relu", "depth": 2}])
def test_no_population_limit_is_reported_without_a_closed_form(given):
    found = as_json(simulate(**given))
    assert all(found["dynamics"][name]["population_limit"] is None for name in ("sgd", "flow"))
    assert found["sgd_vs_population"] is None


def test_effective_negatives_of_huge_batches_are_not_counted():
    still = Outcome(build(resolve({**SMALL, "batch_size": MOST_PAIRS + 1, "pool": 0, "aug_strength": 0.4})))
    limit = as_json(diagonal(still, 1.0, 1.0, 1.0, 1.0))["dynamics"]["sgd"]["population_limit"]
    assert limit["effective_negatives"] is None
    assert limit["valid"] is True


def test_sgd_is_compared_with_the_population_flow_where_both_ran():
    outcome = simulate(dynamics=("sgd", "population"))
    found = as_json(outcome)["sgd_vs_population"]
    distance = relative_distance(outcome.trajectories["sgd"], outcome.trajectories["population"])[1].mean(-1)
    assert found["relative_distance"] == float(distance.max()) > 0
    assert found["at_end"] == float(distance[-1])
    assert found["until_time"] == pytest.approx(3.0)
    assert report(outcome)["sgd_vs_flow"] is None

    population = outcome.trajectories["population"]
    one_run = Trajectory(population.time, (population.weights[0][:, :1],), population.loss[:, :1], (), population.meta)
    interrupted = Outcome(outcome.simulation, {"sgd": outcome.trajectories["sgd"], "population": one_run})
    assert as_json(interrupted)["sgd_vs_population"] is None
    for name in ("sgd", "population"):
        alone = Outcome(outcome.simulation, {name: outcome.trajectories[name]})
        assert as_json(alone)["sgd_vs_population"] is None


@pytest.mark.parametrize("loss", ["infonce", "dot", "spectral"])
def test_losses_of_all_dynamics_are_on_one_scale(loss):
    # Near zero each loss is its value there, log N for a softmax: the population's too.
    found = report(simulate(dynamics=("sgd", "population"), loss=loss, init_scale=1e-6, steps=2, pool=0, lr=1e-3))
    ends = [found["dynamics"][name]["loss"] for name in ("sgd", "population")]
    assert ends[1] == pytest.approx(ends[0], abs=1e-6)


def test_a_flow_that_may_have_stayed_at_a_saddle_is_told(capsys):
    outcome = simulate(dynamics=("population",))
    said = "The population flow may have stayed at a saddle: from t = 1.5 on something grew"
    found = report(outcome)
    assert "unseen_from" not in found["dynamics"]["population"]
    print_outcome(outcome, found, to_stderr=False)
    assert said not in capsys.readouterr().out

    outcome.trajectories["population"].meta["unseen_from"] = 1.5
    found = report(outcome)
    assert found["dynamics"]["population"]["unseen_from"] == 1.5
    print_outcome(outcome, found, to_stderr=False)
    assert said in " ".join(capsys.readouterr().out.split())
