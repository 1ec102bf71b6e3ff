"""Simulations of covariances from files, of correlated views, of any widths, and with weight decay."""

import numpy as np
import pytest
import torch
from helpers.reference import normal, random_covariance
from scipy.stats import spearmanr

from dyncollapse import Configuration, GaussianTask, SettingError, expand_grid, mode_dimensions, rest_modes
from dyncollapse.simulation.build import build
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.report import COUPLED, report
from dyncollapse.simulation.run import run
from dyncollapse.sweeps.grid import point_hash


@pytest.fixture
def files(tmp_path, generator):
    covs = {name: 0.2 * torch.eye(4).double() + random_covariance(generator, 4) for name in ("S", "A")}
    for name, cov in covs.items():
        np.save(tmp_path / f"{name}.npy", cov.numpy())
    return covs["S"], covs["A"], str(tmp_path / "S.npy"), str(tmp_path / "A.npy")


def outcome_of(**settings):
    simulation = build(resolve({"runs": 2, "pool": 0, "dynamics": ("population",), "steps": 4000} | settings))
    return run(simulation, lambda *_: None, lambda _: None)


@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
def test_covariances_from_files_make_the_task(views, files):
    data, aug, data_file, aug_file = files
    found = outcome_of(data_cov=data_file, aug_cov=aug_file, views=views)
    task = found.simulation.task
    assert torch.equal(task.data_cov, data)
    assert torch.equal(task.aug_cov, aug)
    values = report(found)
    expected = rest_modes(GaussianTask(data, aug, views))
    rests = [mode["rest_singular_value"] for mode in values["prediction"]["modes"]]
    assert rests == pytest.approx(expected.variance.sqrt().tolist(), rel=1e-9)
    assert [mode["escape_time"] is not None for mode in values["prediction"]["modes"]] == expected.alive.tolist()
    assert values["prediction"]["whitened"]
    assert values["prediction"]["threshold"] is None
    end = found.ends["population"].singular_value.mean(0)
    torch.testing.assert_close(end, expected.variance.sqrt(), rtol=0, atol=1e-3)
    fates = [str(fate) for fate in found.verdict.fates]
    assert fates == ["alive" if alive else "dead" for alive in expected.alive.tolist()]


def test_correlated_views_may_kill_what_independent_noise_cannot(tmp_path):
    settings = {"dim": 4, "aug_dim": 2, "aug_strength": 2.0, "steps": 2000, "loss": "spectral"}
    assert outcome_of(views="two-sided", **settings).verdict.count == 0
    correlated = outcome_of(views="correlated", view_corr="-0.9", **settings)
    assert [str(fate) for fate in correlated.verdict.fates] == ["alive"] * 2 + ["dead"] * 2
    np.save(tmp_path / "C.npy", np.diag([0, 0, -1.8, -1.8]))
    again = outcome_of(views="correlated", view_corr=str(tmp_path / "C.npy"), **settings)
    torch.testing.assert_close(again.simulation.task.shared, correlated.simulation.task.shared)
    # s + c k = 0; of a file there is no strength.
    assert report(correlated)["prediction"]["threshold"] == pytest.approx(0.5 / 0.9)
    assert report(again)["prediction"]["threshold"] is None


@pytest.mark.parametrize(
    ("loss", "settings", "fates"),
    [
        ("vcreg", {"invariance": 5.0, "views": "two-sided"}, ["alive", "alive", "dead", "dead"]),
        ("vcreg", {"views": "two-sided"}, ["alive"] * 4),
        ("spectral", {}, ["alive"] * 4),
        ("infonce", {"weight_decay": 0.7, "aug_strength": 0.5}, ["alive", "alive", "decayed", "decayed"]),
        ("infonce", {"weight_decay": 0.7, "aug_strength": 1.5}, ["alive", "alive", "dead", "dead"]),
        ("infonce", {"weight_decay": 1.1, "views": "two-sided"}, ["decayed"] * 4),
    ],
)
def test_each_cause_of_death_is_named(loss, settings, fates):
    found = outcome_of(dim=4, aug_dim=2, loss=loss, **settings)
    assert [str(fate) for fate in found.verdict.fates] == fates
    mechanism = {"dead": "strong-augmentation", "decayed": "weight-decay"}.get(fates[-1], "none")
    assert report(found)["verdict"]["mechanism"] == mechanism
    if "decayed" in fates:
        assert "by weight decay" in found.verdict.sentence


def test_two_layers_with_weight_decay_live_or_die_by_their_start():
    settings = {"dim": 4, "aug_dim": 4, "aug_strength": 0.3, "depth": 2, "weight_decay": 0.2, "steps": 20_000}
    large, small = (outcome_of(init="spectrum", init_rate=0.0, init_scale=scale, **settings) for scale in (1.5, 0.05))
    assert [str(fate) for fate in large.verdict.fates] == ["alive"] * 4
    assert [str(fate) for fate in small.verdict.fates] == ["decayed"] * 4


@pytest.mark.parametrize("dynamics", ["sgd", "flow", "population"])
def test_weight_decay_reaches_every_dynamics(dynamics):
    settings = {"dim": 2, "aug_dim": 2, "aug_strength": 0.5, "dynamics": (dynamics,), "steps": 300, "batch_size": 128}
    plain, decayed = (outcome_of(weight_decay=decay, **settings) for decay in (0.0, 0.5))
    assert decayed.ends[dynamics].singular_value.max() < 0.9 * plain.ends[dynamics].singular_value.min()


def test_widths_name_every_layer():
    found = outcome_of(widths=[6, 4, 3], loss="spectral")
    assert [tuple(w.shape[1:]) for w in found.simulation.weights] == [(4, 6), (3, 4)]
    assert (found.simulation.configuration.depth, found.simulation.configuration.aug_dim) == (2, 3)
    assert found.verdict.fates.count("structural") == 3
    assert resolve({"widths": "6,4,3"}).layer_widths == [6, 4, 3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": "4"}, "two or more whole numbers"),
        ({"widths": "4,0"}, "each width must be between 1"),
        ({"widths": "4,4", "depth": 2}, "widths and depth are both given"),
        ({"views": "correlated"}, "view_corr is not given"),
        ({"view_corr": "0.5"}, "views is one-sided, and view_corr is '0.5'"),
        ({"views": "correlated", "view_corr": "1.5"}, "must be between -1 and 1"),
        ({"data_cov": "missing.npy"}, "cannot be read: No such file"),
        ({"data_cov": __file__}, "no sound .npy file"),
        ({"data_cov": "S.npy", "data_var": 1.0}, "data_cov and data_var are both given"),
    ],
)
def test_unusable_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(SettingError, match=message) as refused:
        build(resolve(settings))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 3)), r"array \(2, 3\)"),
        (np.ones(4), r"array \(4,\)"),
        (np.array([[1.0, 2.0], [0.0, 1.0]]), "not symmetric"),
        (np.diag([1.0, -1.0]), "has the eigenvalue -1"),
        (np.diag([1.0, np.nan]), "NaN or infinity"),
        (np.array([["a", "b"], ["c", "d"]]), "give a covariance"),
        (np.eye(2) * 1j, "give a covariance"),
    ],
)
def test_files_that_hold_no_covariance_are_refused_in_one_line(array, message, tmp_path):
    np.save(tmp_path / "C.npy", array)
    with pytest.raises(SettingError, match=message) as refused:
        build(resolve({"data_cov": str(tmp_path / "C.npy")}))
    assert "\n" not in str(refused.value)


def test_the_name_of_a_point_follows_the_content_of_its_files(tmp_path, generator):
    root = normal(generator, 4, 8).numpy()
    for name, scale in (("one", 1), ("copy", 1), ("other", 2)):
        np.save(tmp_path / f"{name}.npy", scale * root @ root.T)
    one, copy, other = (
        point_hash(expand_grid({"data_cov": str(tmp_path / f"{name}.npy")})[0]) for name in ("one", "copy", "other")
    )
    assert one == copy != other
    assert point_hash(Configuration()) == point_hash(Configuration(weight_decay=0.0))


@pytest.mark.parametrize("loss", ["infonce", "vcreg"])
def test_modes_that_disturb_each_other_escape_when_the_population_flow_says(tmp_path, loss):
    generator = torch.Generator().manual_seed(2)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0]
    np.save(tmp_path / "data.npy", (turn * torch.tensor([2.0, 1.0, 0.3, 0.1]) @ turn.T).numpy())
    np.save(tmp_path / "aug.npy", np.diag([0.3, 0.1, 0.2, 0.05]))
    files = {"data_cov": str(tmp_path / "data.npy"), "aug_cov": str(tmp_path / "aug.npy")}
    outcome = outcome_of(loss=loss, views="two-sided", init_scale=1e-3, runs=1, steps=1600, lr=0.05, **files)
    found = report(outcome)
    assert found["prediction"]["whitened"]
    assert COUPLED in found["prediction"]["assumes"]
    times = torch.tensor([mode["escape_time"] for mode in found["prediction"]["modes"]])
    path, rest = outcome.trajectories["population"], outcome.outlook.rest
    values = mode_dimensions(path.weights, outcome.simulation.task).singular_value[:, 0]
    first = path.time[(values >= 0.5**0.5 * rest).to(torch.int64).argmax(0)]
    ratio = first / times
    assert spearmanr(first, times).statistic == 1
    assert float(ratio.min()) > 0.6
    assert float(ratio.max()) < 1.6


def test_covariances_of_two_sizes_are_refused_by_both_names(tmp_path):
    for size in (4, 6):
        np.save(tmp_path / f"{size}.npy", np.eye(size))
    with pytest.raises(SettingError, match=r"data_cov is a covariance \(6, 6\) and aug_cov \(4, 4\)"):
        resolve({"data_cov": str(tmp_path / "6.npy"), "aug_cov": str(tmp_path / "4.npy")})


def test_numbers_wider_than_64_bits_are_refused_by_their_name(tmp_path):
    np.save(tmp_path / "long.npy", np.eye(4, dtype=np.longdouble))
    kind = np.dtype(np.longdouble).name
    if kind == "float64":
        pytest.skip("long doubles have 64 bits here")
    with pytest.raises(SettingError, match=rf"holds an array \(4, 4\) of {kind}; give a covariance"):
        build(resolve({"data_cov": str(tmp_path / "long.npy"), "dim": 4}))
