"""Pictures of simulations and sweeps can be read, and say what they show."""

import pytest
import torch
from helpers.pictures import faults

from dyncollapse import diagnose, simulate
from dyncollapse.commands.pictures import draw_outcome
from dyncollapse.diagnostics.exports import draw
from dyncollapse.sweeps.picture_options import Panel
from dyncollapse.sweeps.pictures import draw_spectra, draw_sweep


@pytest.fixture(scope="module")
def outcome():
    return simulate(dim=4, depth=2, steps=40, runs=2, flow_batches=2, threads=1).outcome


@pytest.mark.parametrize("name", ["spectrum", "paths", "alignment"])
def test_pictures_of_a_simulation_can_be_read(outcome, name):
    assert faults(draw_outcome(outcome, name)) == []


def test_a_spectrum_states_its_setting(outcome):
    (ax,) = draw_outcome(outcome, "spectrum").axes
    words = ax.get_title()
    assert all(part in words for part in ("infonce", "one-sided", "2 linear layers", "d = 4", "k = 1.5", "t = 4"))


def report(strength, ranks):
    values = [1.0 / (k + 1) / (1 + strength) for k in range(ranks)]
    modes = [{"rest_singular_value": 0.5} for _ in values]
    return {
        "dynamics": {"sgd": {"product_singular_values": values}},
        "prediction": {"modes": modes, "threshold": 1.0},
    }


# Each number of panels with each number of ranks, and with both kinds of axis.
@pytest.mark.parametrize(
    ("axis", "panels", "ranks"),
    [
        *(("aug_strength", 1, 1), ("depth", 1, 3), ("aug_strength", 1, 16)),
        *(("depth", 2, 1), ("aug_strength", 2, 3), ("depth", 2, 16)),
        *(("aug_strength", 5, 1), ("aug_strength", 5, 3), ("depth", 5, 16)),
    ],
)
def test_pictures_of_a_sweep_can_be_read(axis, panels, ranks):
    points = [(float(k) if axis == "aug_strength" else k, report(k, ranks)) for k in (1, 2, 3)]
    drawn = [Panel(f"runs {k}", points) for k in range(panels)]
    sweep = draw_sweep(drawn, axis, axis)
    assert faults(sweep) == []
    assert faults(draw_spectra(drawn, axis, "")) == []
    if axis == "depth":
        assert sweep.axes[0].get_xticks().tolist() == [1, 2, 3]


@pytest.mark.parametrize("pairs", [False, True])
def test_the_picture_of_a_report_can_be_read(pairs):
    z = torch.randn(200, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    others = (z + 0.1 * z.flip(0),) if pairs else ()
    assert faults(draw(diagnose(z, *others))) == []
