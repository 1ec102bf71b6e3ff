"""Pictures of runs can be read: what helpers.pictures asks for, no dimension 0, no rounding drawn as a spectrum."""

import warnings
from pathlib import Path

import pytest
import torch
from helpers.pictures import faults
from matplotlib.figure import Figure

from dyncollapse import diagnose
from dyncollapse.bridge import Run, draw_check, draw_curves, draw_spaces, resolve
from dyncollapse.bridge.evaluation.check_pictures import plot_relative_spectra
from dyncollapse.bridge.real_scale.pictures import draw_report

RANKS = ("dimension, by variance", "generalised mode")
STEPS = [{"step": step, "loss": 5.0 - step / 10} for step in (1, 2, 3)]
SPECTRUM = [10.0 ** (-k / 4) for k in range(40)]


def rows():
    z = torch.randn(300, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return z, z + 0.1 * z.flip(0)


def spaces():
    z, z_pos = rows()
    return draw_spaces({name: diagnose(z, z_pos) for name in ("representation", "embedding")})


def curves():
    line = {f"{space}_spectrum": SPECTRUM for space in ("representation", "embedding")}
    line |= {f"{space}_effective_rank": 3.0 for space in ("representation", "embedding")}
    return draw_curves(STEPS, [{"step": 3, **line}])


def run(head, **settings):
    facts = {"data": "digits", "images": 1297, "representation_dim": 40, "embedding_dim": 40, "steps": 3}
    probe = {"method": "logistic", "dimensions": 40, "top1": 90.0, "error": 1.0, "step": 3}
    space = {"measures": {}, "verdict": {"collapsed": 0, "mechanism": "none", "threshold": 1e-6}, "dim": 40}
    space |= {"spectrum": SPECTRUM, "noise_floor": 1e-8}
    diagnosis = {"spaces": {"representation": space, "embedding": space}, "config": {"split": "train", "views": "x"}}
    recipe = resolve({"data": "digits", "projector": head, **settings})
    return Run(Path(head), recipe, facts, [probe], diagnosis, STEPS)


def check():
    return draw_check([run("mlp"), run("none"), run("low-rank-diagonal", d0=40)])


def real_scale():
    rates = {"bare": 100.0, "memory": 90.0, "mixed": 80.0, "workers": 70.0}
    # Fewer samples than dimensions: what is left of the spectrum is rounding.
    spectrum = {"dim": 40, "eigenvalues": [*SPECTRUM[:20], *[1e-30] * 20]}
    values = {
        1: {"batch": 8, "rates": {"SimCLR-mlp": rates, "DirectCLR": rates}},
        2: {"images": 20, "spectra": {"representation": spectrum, "embedding": spectrum}},
        4: {"runs": 8, "run_steps_per_second": {"cpu": 1e3, "device": 2e3, "floor": 4e3}},
        5: {"loss": [3.0, 2.0, 1.0], "resumed_loss": [3.0, 2.0, 1.0], "died_at": 2},
    }
    return draw_report({"parts": [{"number": number, "values": part} for number, part in values.items()]})


@pytest.mark.parametrize("draw", [spaces, curves, check, real_scale])
def test_text_is_large_enough_and_ranks_begin_at_one(draw):
    figure = draw()
    assert faults(figure) == []
    ranked = [axes for axes in figure.axes if axes.get_xlabel() in RANKS]
    assert ranked
    assert all(min(axes.get_xticks()) == 1 for axes in ranked)
    assert all(len(axes.get_xticks()) > 1 for axes in ranked)


def test_rounding_is_no_part_of_a_spectrum():
    (axes,) = [axes for axes in real_scale().axes if axes.get_xlabel() in RANKS]
    assert axes.get_ylim()[0] == pytest.approx(1e-16)


def test_sizes_of_the_sub_vector_are_written_as_numbers():
    ticks = [tick.get_text() for axes in check().axes for tick in axes.get_xticklabels() if "d_0" in axes.get_xlabel()]
    assert ticks == ["40"]


@pytest.mark.parametrize(("runs", "empty"), [([], 6), ([run("orthogonal")], 5)], ids=["none", "no head of a figure"])
def test_figures_without_runs_say_so(runs, empty):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_check(runs)
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["no run yet"] * empty


def test_seeds_without_variance_are_left_out_of_a_band():
    figure = Figure()
    plot_relative_spectra(figure.subplots(), {"mlp": [0.0, 0.0], "none": [[4.0, 2.0, 0.0], [2.0, 1.0, 0.5]]})
    (axes,) = figure.axes
    (band,) = axes.collections
    inside = [tuple(corner) for corner in band.get_paths()[0].vertices]
    assert (2.0, 0.5) in inside
    assert max(rank for rank, _ in inside) == 2
    figure.canvas.draw()
