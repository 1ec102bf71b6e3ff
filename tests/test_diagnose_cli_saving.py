import errno

import numpy as np
import pytest
from diagnose_cli_helpers import DIM, SAVED, fine

# --------------------------------------------------------------------------------------------------------------- saving


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


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("diagnosis.json", OSError(errno.ENOSPC, "No space left on device")),
        ("spectrum.png", OSError(errno.ENOSPC, "No space left on device")),
        ("report.html", KeyboardInterrupt()),
    ],
)
def test_what_cannot_be_saved_whole_is_not_saved(diagnose, folder, monkeypatch, file, error):
    write = type(folder).write_bytes

    def full(path, data):
        write(path, data[: len(data) // 2])
        if file in path.name:
            raise error

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    result = diagnose("a.npy", "--out", "new")
    assert result.exit_code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert "nothing was saved" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (folder / "new").exists()


def test_ctrl_c_is_one_line_and_leaves_nothing(diagnose, folder, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("dyncollapse.monitor.diagnose", interrupted)
    result = diagnose("a.npy", "--out", "new", "--json")
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr == "dyncollapse: Interrupted; nothing was saved.\n"
    assert not (folder / "new").exists()
