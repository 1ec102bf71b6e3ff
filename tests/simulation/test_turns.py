"""Modes of one layer grow from what faster modes leave of them, and so reach half of their variance when it is said."""

import pytest
import torch
from helpers.remedies import number, suggested

from dyncollapse import modes, population_flow
from dyncollapse.simulation.build import build
from dyncollapse.simulation.dimensions import mode_dimensions, values_in_turn
from dyncollapse.simulation.prediction import escape_times, outlook, sizes
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.run import run

TIMES = torch.cat([torch.zeros(1), torch.logspace(-2, 3, 600)]).double()
# In these modes with augmentation grow at half the rate of those without. At equal rates nothing has a turn.
LOSSES = [("infonce", 0.0), ("infonce", 0.05), ("vcreg", 0.0)]


def when_half(simulation, weight_decay, augmented):
    """Flow time at which the last augmented mode of each run reaches half of its variance at the end."""
    path = population_flow(
        simulation.weights, simulation.task, TIMES, objective=simulation.objective, weight_decay=weight_decay
    )
    last = torch.linalg.svdvals(path.weights[0] @ modes(simulation.task).directions[:, augmented])[..., -1]
    reached = last.square() >= last[-1].square() / 2
    return TIMES[reached.to(torch.int64).argmax(0)]


@pytest.mark.parametrize(("loss", "weight_decay"), LOSSES)
@pytest.mark.parametrize("outputs", [6, 9])
def test_each_run_of_one_layer_takes_the_predicted_time_from_a_gaussian_start(loss, weight_decay, outputs):
    settings = {"dim": 6, "aug_dim": 3, "aug_strength": 0.5, "out_dim": outputs, "runs": 12, "pool": 0}
    simulation = build(resolve(settings | {"loss": loss, "weight_decay": weight_decay}))
    predicted = outlook(simulation)
    assert predicted.forces is not None
    taken = when_half(simulation, weight_decay, [3, 4, 5])
    in_turn = sizes(simulation, predicted, simulation.weights)
    singular = mode_dimensions(simulation.weights, simulation.task).singular_value[..., :6].double()
    found, early = (
        torch.stack([predicted.forces.learning_times(one, 0.5, weight_decay)[3:].max() for one in start])
        for start in (in_turn, singular)
    )
    torch.testing.assert_close(found, taken, rtol=0.05, atol=0)
    if outputs == 6:  # more of them leave fast modes less to take of the singular values of others
        assert float((early / taken).min()) < 0.8


def test_remedies_name_the_time_of_the_slowest_run():
    settings = {"dim": 8, "runs": 8, "dynamics": ("population",), "seed": 6}
    outcome = run(build(resolve(settings)), lambda *_: None, lambda _: None)
    _, effect = suggested(outcome, "Weaken")
    weaker = build(resolve(settings | {"aug_strength": number(effect, "strength of")}))
    assert float(when_half(weaker, 0.0, [4, 5, 6, 7]).max()) == pytest.approx(number(effect, "t ="), rel=0.1)


def test_nothing_is_left_of_a_mode_where_faster_ones_take_all_outputs():
    simulation = build(resolve({"dim": 4, "out_dim": 2, "aug_strength": 0.5, "runs": 3}))
    predicted = outlook(simulation)
    size = sizes(simulation, predicted, simulation.weights)
    assert bool((size[:, :2] > 0).all())
    assert bool((size[:, 2:] == 0).all())
    times = escape_times(simulation, predicted, size)
    assert bool(times[:2].isfinite().all())
    assert bool(times[2:].isnan().all())


def test_modes_without_any_size_take_no_outputs():
    product = torch.diag(torch.tensor([0.0, 0.3, 0.2], dtype=torch.float64))
    found = values_in_turn(product, torch.eye(3).double(), [[0], [1], [2]], torch.tensor([3.0, 2.0, 1.0]).double())
    assert found.tolist() == [0.0, 0.3, 0.2]


def test_equal_modes_have_the_singular_values_of_their_span(generator):
    product = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    frame = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0]
    found = values_in_turn(product, frame, [[0, 1, 2, 3]], torch.ones(4).double())
    torch.testing.assert_close(found, torch.linalg.svdvals(product))
