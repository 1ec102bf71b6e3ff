import re

import numpy as np
import pytest
from helpers.diagnose_command import DIM, SAVED, fine
from helpers.programs import messages, refused, small_disk

from dyncollapse.runtime.folders import claimed_folder

pytestmark = pytest.mark.usefixtures("sketched")

# --------------------------------------------------------------------------------------------------------------- saving


@pytest.mark.drawn
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_everything_is_saved(diagnose, folder, form):
    result = fine(diagnose("a.npy", "--positives", "b.npy", "--out", "some/where", *form))
    where = folder / "some/where"
    assert {path.name for path in where.iterdir()} == SAVED | {"covariances.npz"}
    with np.load(where / "covariances.npz") as saved:
        assert {name: array.shape for name, array in saved.items()} == dict.fromkeys(("sigma0", "sigma1"), (DIM, DIM))
    assert (where / "spectrum.png").read_bytes().startswith(b"\x89PNG")
    assert "Saved in some/where/" in (result.stderr if form else result.stdout)
    if form:
        assert (where / "diagnosis.json").read_text() == result.stdout


@pytest.mark.drawn  # the size of files matters
@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize("size", [0, 1000, 10_000])
def test_what_a_full_disk_does_not_take_is_not_saved_and_printed_all_the_same(diagnose, folder, size, form):
    with small_disk(size):
        result = diagnose("a.npy", "--out", "new", *form)
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert re.fullmatch(r"dyncollapse: new/\S+ could not be written \(File too large\); nothing was saved", last)
    assert result.stdout.startswith("{" if form else "a.npy: 400 samples")
    assert {path.name for path in folder.iterdir()} == {f"{name}{end}.npy" for name in "abc" for end in ("", "-in")}
    fine(diagnose("a.npy", "--out", "new"))


def test_of_two_that_save_in_one_folder_the_second_is_refused(diagnose, folder):
    with claimed_folder(folder / "new", "diagnose"):
        assert "new is in use by process" in refused(diagnose("a.npy", "--out", "new"))
    fine(diagnose("a.npy", "--out", "new"))
    before = {path: path.read_bytes() for path in (folder / "new").iterdir()}
    assert "new already holds files" in refused(diagnose("b.npy", "--out", "new"))
    assert {path: path.read_bytes() for path in (folder / "new").iterdir()} == before


def test_ctrl_c_while_saving_leaves_nothing(diagnose, folder, monkeypatch):
    def pressed(path, content):
        path.write_bytes(content)
        if path.name == "report.html":
            raise KeyboardInterrupt

    monkeypatch.setattr("dyncollapse.commands.diagnose.write_bytes", pressed)
    result = diagnose("a.npy", "--out", "new")
    assert result.exit_code == 130
    assert messages(result.stderr) == ["dyncollapse: Interrupted; nothing was saved."]
    assert not list(folder.glob("*new*"))


@pytest.mark.drawn
def test_a_picture_that_fails_costs_no_result(diagnose, folder, monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("Failed to process string with tex\nbecause latex could not be found")

    monkeypatch.setattr("dyncollapse.plotting.plot_eigenvalues", broken)
    result = fine(diagnose("a.npy", "--out", "new"))
    warning = "dyncollapse: warning: spectrum.png could not be drawn (Failed to process string with tex)"
    assert messages(result.stderr) == [warning]
    assert {path.name for path in (folder / "new").iterdir()} == SAVED - {"spectrum.png"}
    assert "The picture could not be drawn (Failed to process" in (folder / "new/report.html").read_text()
    assert "spectrum.png" not in result.stdout


def test_ctrl_c_is_one_line_and_leaves_nothing(diagnose, folder, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("dyncollapse.diagnostics.embeddings.diagnose", interrupted)
    result = diagnose("a.npy", "--out", "new", "--json")
    assert result.exit_code == 130
    assert result.stdout == ""
    assert messages(result.stderr) == ["dyncollapse: Interrupted; nothing was saved."]
    assert not (folder / "new").exists()
