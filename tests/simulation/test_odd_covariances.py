"""Covariances without data, of low rank, and without common modes: finite records, and no wrong cause in a verdict."""

import json

import numpy as np
import pytest
import torch
from helpers.reference import random_covariance

from dyncollapse import SettingError
from dyncollapse.commands.simulate import print_outcome
from dyncollapse.simulation.build import build
from dyncollapse.simulation.command import as_options
from dyncollapse.simulation.prediction import escape_times, outlook
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.report import report
from dyncollapse.simulation.run import run

SMALL = {"runs": 2, "steps": 60, "batch_size": 16, "pool": 0, "lr": 0.02}


@pytest.fixture
def cov(tmp_path, generator):
    """Paths of covariances by name."""
    root, other = (torch.randn(6, rank, generator=generator, dtype=torch.float64) for rank in (2, 3))
    made = {
        "zero": torch.zeros(6, 6),
        "half": torch.diag(torch.tensor([1.0, 1, 1, 0, 0, 0])),
        "one": torch.eye(6),
        "rank 2": root @ root.T,
        "rank 3": other @ other.T,
        "full": 0.3 * torch.eye(6) + torch.diag(torch.arange(6.0)),
        "turned": 0.2 * torch.eye(6) + random_covariance(generator, 6),
    }
    for name, matrix in made.items():
        np.save(tmp_path / f"{name}.npy", matrix.double().numpy())
    return lambda name: str(tmp_path / f"{name}.npy")


def judged(capsys, **settings):
    """The outcome, and what a user reads; everything that is saved is JSON of finite numbers."""
    outcome = run(build(resolve(SMALL | settings)), lambda *_: None, lambda _: None)
    values = report(outcome)
    json.dumps(values, allow_nan=False)
    print_outcome(outcome, values, to_stderr=False)
    return outcome, capsys.readouterr().out


@pytest.mark.parametrize("loss", ["infonce", "spectral", "vcreg", "barlow", "simsiam"])
@pytest.mark.parametrize(("data", "aug"), [("half", "one"), ("zero", "one"), ("zero", "zero"), ("rank 3", "full")])
def test_records_of_singular_covariances_are_finite(data, aug, loss, cov, capsys):
    outcome, said = judged(capsys, data_cov=cov(data), aug_cov=cov(aug), loss=loss, lr=2e-3, dynamics=("sgd",))
    assert outcome.verdict.sentence in " ".join(said.split())


@pytest.mark.parametrize(("data", "aug", "varying"), [("rank 2", "zero", 2), ("half", "half", 3)])
def test_inputs_that_never_vary_are_no_want_of_width(data, aug, varying, cov, capsys):
    outcome, said = judged(capsys, data_cov=cov(data), aug_cov=cov(aug), dynamics=("sgd",))
    fates = [str(fate) for fate in outcome.verdict.fates]
    assert fates.count("structural") == 6 - varying
    assert f"for want of inputs (they vary along {varying} directions only)" in " ".join(said.split())
    assert "width" not in outcome.verdict.sentence


def test_deep_weight_decay_without_common_modes_leaves_the_cause_open(cov, capsys):
    settings = {"data_cov": cov("turned"), "aug_cov": cov("full"), "weight_decay": 0.3, "depth": 3}
    outcome, said = judged(capsys, dynamics=("sgd", "population"), **settings)
    assert "unexplained" in {str(fate) for fate in outcome.verdict.fates} <= {"alive", "unexplained"}
    assert "Population limit" in said


def test_a_network_of_byol_that_vanished_has_collapsed(capsys):
    settings = {
        "activation": "relu",
        "depth": 2,
        "loss": "byol",
        "weight_decay": 1.0,
        "steps": 400,
        "lr": 0.1,
        "dim": 4,
    }
    outcome, _ = judged(capsys, dynamics=("sgd",), **settings)
    assert outcome.verdict.count == 4


def test_vcreg_at_its_threshold_is_at_the_threshold(capsys):
    settings = {"dim": 4, "aug_dim": 2, "aug_strength": 1.5, "views": "two-sided", "loss": "vcreg", "invariance": 4 / 3}
    outcome, _ = judged(capsys, dynamics=("population",), **settings | {"steps": 3000, "lr": 0.1})
    assert [str(fate) for fate in outcome.verdict.fates][2:] == ["dead", "dead"]
    assert "2 of them at the threshold" in outcome.verdict.sentence


def test_weight_decay_leaves_no_mode_to_decay_as_a_power_of_time(capsys):
    _, said = judged(capsys, dim=4, aug_dim=2, aug_strength=1.0, weight_decay=1.0, dynamics=("population",))
    assert "power of time" not in said


def test_options_of_a_point_leave_out_what_files_and_widths_replace(cov):
    point = resolve({"data_cov": cov("half"), "aug_cov": cov("one"), "ridge": 0.1})
    words = as_options(point)
    assert "--aug-dim" not in words
    assert "--aug-strength" not in words
    point = resolve({"widths": "6,4,2"})
    assert "--depth" not in as_options(point)


def test_a_huge_covariance_is_refused_at_once(tmp_path):
    np.lib.format.open_memmap(tmp_path / "huge.npy", "w+", "f8", (5000, 5000))
    with pytest.raises(SettingError, match="up to 2048"):
        resolve({"data_cov": str(tmp_path / "huge.npy")})


@pytest.mark.parametrize("loss", ["infonce", "spectral", "barlow"])
def test_modes_that_disturb_each_other_have_times_in_float32_too(loss, cov):
    def times(dtype):
        s = build(resolve(SMALL | {"data_cov": cov("full"), "aug_cov": cov("turned"), "loss": loss, "dtype": dtype}))
        return escape_times(s, outlook(s), torch.full((2, 6), 1e-3, dtype=s.weights[0].dtype))

    assert torch.isfinite(times("float64")).any()
    torch.testing.assert_close(times("float32"), times("float64"), rtol=1e-3, atol=0)
