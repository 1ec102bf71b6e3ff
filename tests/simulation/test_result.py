"""`simulate` in Python gives what the command gives, as records, tables and pictures."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from dyncollapse import SettingError, SimulationResult, Trajectory, simulate

SMALL = {"dim": 4, "steps": 60, "runs": 2, "batch_size": 16, "flow_batches": 2, "dynamics": ("sgd", "population")}


@pytest.fixture(scope="module")
def result() -> SimulationResult:
    return simulate(**SMALL, depth=2, widths=None, threads=1)


def axes():
    return Figure().subplots()


def test_verdict_tables_and_record_agree(result):
    values = result.to_dict()
    json.dumps(values, allow_nan=False)
    assert values["status"] == "finished"
    assert values["verdict"]["collapsed"] == result.verdict.count
    assert values["config"]["aug_strength"] == result.configuration.aug_strength == 1.5
    rows = result.rows()
    assert [(row["dynamics"], row["dimension"]) for row in rows] == [
        (n, k) for n in SMALL["dynamics"] for k in (1, 2, 3, 4)
    ]
    assert [row["fate"] for row in rows[:4]] == [one["fate"] for one in values["verdict"]["dimensions"]]
    assert rows[4]["fate"] is None  # the verdict is on SGD
    assert rows[0]["rho"] == pytest.approx(values["prediction"]["modes"][0]["rho"])


def test_data_frames_and_data_sets_have_the_numbers(result):
    pytest.importorskip("pandas")
    pytest.importorskip("xarray")
    frame = result.to_pandas()
    assert len(frame) == 8
    assert frame.singular_value.tolist() == [row["singular_value"] for row in result.rows()]
    data = result.to_xarray()
    path = result.trajectories["sgd"]
    assert np.array_equal(data.sgd_singular_value.values, path.singular_values.numpy())
    assert data.sgd_loss.dims == ("sgd_time", "run")
    assert data.attrs["loss"] == "infonce"
    assert data.sgd_singular_value.sel(rank=1).isel(sgd_time=-1).mean() > 0


def test_pictures_are_drawn_on_given_axes_or_on_new_ones(result):
    for draw in (result.plot_spectrum, result.plot_paths, result.plot_alignment):
        ax = axes()
        assert draw(ax) is ax
        assert ax.has_data()
    labels = [text.get_text() for text in result.plot_paths(axes()).get_legend().get_texts()]
    assert labels == [f"{name}, rank 1 (dark) to 4 (light)" for name in ("sgd", "population")]
    assert result.plot_spectrum().figure.get_axes()


def test_alignment_needs_two_layers_and_a_known_dynamics(result):
    with pytest.raises(ValueError, match="layer is 2, and the network has 2"):
        result.plot_alignment(axes(), layer=2)
    with pytest.raises(ValueError, match="dynamics is 'flow'; recorded are sgd, population"):
        result.plot_alignment(axes(), dynamics="flow")
    assert result.plot_alignment(axes(), dynamics="population").get_xlabel().endswith("$W_{1}$")


def test_words_say_the_setting_and_the_verdict(result):
    assert repr(result).startswith("SimulationResult(infonce, one-sided, 4 dimensions, sgd+population: ")
    assert len(repr(result)) < 120
    page = result._repr_html_()
    assert page.count("<tr>") == 9
    assert result.verdict.sentence.split(";")[0][:20] in page


def test_saved_folder_is_that_of_the_command(result, tmp_path):
    folder = result.save(tmp_path / "run")
    assert sorted(path.name for path in folder.iterdir()) == ["population.npz", "run.json", "sgd.npz"]
    assert json.loads((folder / "run.json").read_text())["verdict"] == result.to_dict()["verdict"]
    assert np.array_equal(Trajectory.load(folder / "sgd.npz").product, result.trajectories["sgd"].product)
    with pytest.raises(ValueError, match="already holds files"):
        result.save(folder)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"aug_strenght": 1}, "there is no setting 'aug_strenght'"),
        ({"dim": "wide"}, "dim is 'wide'"),
        ({"dim": 0}, "dim is 0; it must be between 1"),
        ({"dynamics": ("sdg",)}, "sdg"),
        ({"threads": 0}, "threads"),
        ({"device": "cuda:999"}, "this machine offers cpu"),
        ({"loss": "vicreg", "dynamics": ("population",)}, "vicreg"),
    ],
)
def test_settings_are_checked_as_on_the_command_line(given, words):
    with pytest.raises(SettingError, match=words):
        simulate(**given)


def test_progress_and_seeds():
    seen = []
    one = simulate(**SMALL, seed=3, threads=1, progress=lambda name, done, total: seen.append((name, done <= total)))
    again = simulate(**SMALL, seed=3, threads=1)
    assert {name for name, _ in seen} == set(SMALL["dynamics"])
    assert all(within for _, within in seen)
    assert np.array_equal(one.trajectories["sgd"].product, again.trajectories["sgd"].product)
