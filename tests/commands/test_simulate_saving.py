"""What `dyncollapse simulate` saves and says when it is killed, out of disk, one of two, or takes long."""

import json
import logging
import re
import signal
import subprocess
import sys
import warnings
from contextlib import ExitStack

import pytest
import torch
from helpers import forks
from helpers.constants import set_constant
from helpers.programs import SMALL, messages, refused, small_disk

from dyncollapse.commands.simulate import LONG
from dyncollapse.dynamics.training import train
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.runtime.folders import claimed_folder
from dyncollapse.simulation.report import save

pytestmark = pytest.mark.usefixtures("sketched")


def test_full_disk_is_one_line_and_leaves_nothing(simulate, tmp_path):
    with small_disk(0):
        result = simulate("--out", "mine")
    assert result.exit_code == 1
    said = "dyncollapse: mine/run.json could not be written (File too large). Nothing was recorded."
    assert messages(result.stderr) == [said]
    assert not list(tmp_path.iterdir())


def test_disk_that_fills_up_between_dynamics_leaves_the_first_whole(simulate, tmp_path, monkeypatch):
    with ExitStack() as disk:

        def fill(outcome, folder):
            values = save(outcome, folder)
            disk.enter_context(small_disk(5000))
            return values

        monkeypatch.setattr("dyncollapse.commands.simulate.save", fill)
        result = simulate("--out", "mine", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert messages(result.stderr) == [
        "dyncollapse: mine/sgd.npz could not be written (File too large). The results so far are in mine/"
    ]
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"run.json", "sgd.npz"}
    assert Trajectory.load(tmp_path / "mine/sgd.npz").time[-1] > 0


KILLED = """
import os, signal, sys
from dyncollapse.commands import simulate
from dyncollapse.commands.main import main
save = simulate.save
def killed(outcome, folder):
    save(outcome, folder)
    os.kill(os.getpid(), signal.SIGKILL)
simulate.save = killed
main(sys.argv[1:])
"""


def test_killed_run_is_continued_by_the_same_command(simulate, tmp_path):
    options = ["--seed", "3", "--out", "mine"]
    assert forks.run(["-c", KILLED, "simulate", *SMALL, *options], cwd=tmp_path).returncode == -signal.SIGKILL
    assert json.loads((tmp_path / "mine/run.json").read_text())["status"] == "running"
    assert "mine already holds files" in refused(simulate("--seed", 4, "--out", "mine"))
    result = simulate(*options)
    assert result.exit_code == 0, result.stderr
    assert messages(result.stderr) == ["Continuing a run that was killed: sgd done"]
    whole = {"run.json", "sgd.npz", "flow.npz", "spectrum.png", "report.html"}
    assert {path.name for path in (tmp_path / "mine").iterdir()} == whole
    assert simulate("--seed", 3, "--out", "whole").exit_code == 0
    mine, whole = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("mine", "whole"))
    assert mine["status"] == "finished"
    assert mine["verdict"] == whole["verdict"]
    for name in ("sgd", "flow"):
        paths = [Trajectory.load(tmp_path / folder / f"{name}.npz") for folder in ("mine", "whole")]
        assert all(torch.equal(*pair) for pair in zip(*(path.weights for path in paths), strict=True))
    assert "already holds files" in refused(simulate(*options))


# Every setting and every backend once: Matplotlib is imported with a backend of the command's own.
OF_MATPLOTLIB = {
    "missing": (b"text.usetex: True\nfont.family: nowhere\n", "nonsense"),
    "unreadable": (b"\xff\xfe", "nonsense"),
    "wrong": (b"lines.linewidth: red\n", "module://matplotlib_inline.backend_inline"),
}
# Runs the command in forks of a process that has imported what it needs but Matplotlib, each in a folder of its own.
IN_FOLDERS = """
import gc, os, sys
import dyncollapse.commands.simulate
from dyncollapse.commands.main import main
from dyncollapse.dynamics.compile_kernels import compile_kernels

compile_kernels()
gc.freeze()
assert "matplotlib" not in sys.modules
command = sys.argv[sys.argv.index("simulate") :]
while sys.argv[1:] != command:
    folder, backend = sys.argv.pop(1), sys.argv.pop(1)
    if not os.fork():
        os.chdir(folder)
        os.environ["MPLBACKEND"] = backend
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
        try:
            main(command)
        except SystemExit as ended:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended.code or 0)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder and the exit code of a command, by its settings of Matplotlib."""
    folders = {name: tmp_path_factory.mktemp(name) for name in OF_MATPLOTLIB}
    for name, (settings, _) in OF_MATPLOTLIB.items():
        (folders[name] / "matplotlibrc").write_bytes(settings)
    words = [word for name, (_, backend) in OF_MATPLOTLIB.items() for word in (folders[name], backend)]
    command = [sys.executable, "-c", IN_FOLDERS, *words, "simulate", *SMALL, "--dynamics", "sgd", "--out", "mine"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(zip(folders, zip(folders.values(), map(int, ended.stdout.split()), strict=True), strict=True))


@pytest.mark.parametrize("name", OF_MATPLOTLIB)
def test_settings_of_matplotlib_cost_no_result(ran, name):
    folder, code = ran[name]
    stdout, stderr = ((folder / stream).read_text() for stream in ("stdout", "stderr"))
    assert code == 0, stderr
    assert "Saved in mine/: run.json, sgd.npz" in stdout
    drawn = (folder / "mine/spectrum.png").exists()
    assert ("warning: mine/spectrum.png could not be drawn" in stderr) is not drawn
    assert len(messages(stderr)) == (0 if drawn else 1)
    assert drawn is not (name == "unreadable")  # with those, Matplotlib itself cannot be imported


def test_of_two_runs_in_one_folder_the_second_is_refused(simulate, tmp_path):
    with claimed_folder(tmp_path / "mine", "simulate"):
        for options in (("--out", "mine"), ("--seed", 1, "--out", "mine", "--json")):
            assert "mine is in use by process" in refused(simulate(*options))
    assert simulate("--out", "mine").exit_code == 0


def test_what_libraries_say_stays_off_the_terminal(simulate, monkeypatch, capfd):
    def talk(*_args, **_kwargs):
        warnings.warn("a word for programmers", UserWarning, stacklevel=2)
        logging.getLogger("some.library").warning("another")
        raise ValueError("--dim is not to my liking")

    monkeypatch.setattr("dyncollapse.simulation.build.build", talk)
    monkeypatch.setattr("dyncollapse.commands.simulate.build", talk)
    shown = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert refused(simulate()) == "dyncollapse: --dim is not to my liking"
        assert warnings.showwarning is shown
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("given", "expected"), [([], (7, 1)), (["--threads", "1"], (1, 1)), (["--threads", "2"], (2, 2))]
)
def test_unset_threads_are_all_cores_for_sgd_and_one_for_an_operation(given, expected, simulate, monkeypatch):
    seen = []

    def trained(*runs, threads, **settings):
        seen.append((threads, torch.get_num_threads()))
        return train(*runs, **settings)

    monkeypatch.setattr("dyncollapse.simulation.run.train", trained)
    monkeypatch.setattr("dyncollapse.commands.simulate.cores", lambda: 7)
    result = simulate("--dynamics", "sgd", "--json", *given)
    assert result.exit_code == 0
    assert seen[-1] == expected
    assert json.loads(result.stdout)["config"]["threads"] == (int(given[1]) if given else None)


def test_counts_beyond_all_reason_and_empty_names_are_refused(simulate, tmp_path):
    for count in (10**3, 10**5, 10**9):
        assert f"--threads is {count}; it must be between 1 and" in refused(simulate("--threads", count))
    assert "Invalid value for '--out': it is empty" in refused(simulate("--out", ""))
    assert not list(tmp_path.iterdir())


def test_long_run_says_beforehand_how_long_and_meanwhile_how_far(simulate, monkeypatch):
    set_constant(monkeypatch, "runtime.progress.LOG_EVERY", 0.001)
    set_constant(monkeypatch, "commands.simulate.LONG", 0.0)
    set_constant(monkeypatch, "sweeps.estimate.SHORT", 0.0)
    result = simulate("--steps", 400, "--json")
    assert result.exit_code == 0
    json.loads(result.stdout)
    first, *lines = result.stderr.splitlines()
    assert re.fullmatch(r"This takes roughly [\d.]+ (s|min); Ctrl-C keeps what is done until then\.", first)
    said = [line for line in lines if re.fullmatch(r"(sgd|flow): (\d+%, about .* left|under way for .*)", line)]
    assert any(line.startswith("sgd: ") and "left" in line for line in said)


def test_run_of_seconds_says_nothing(simulate, monkeypatch):
    monkeypatch.setattr("dyncollapse.commands.simulate.expected_seconds", lambda _configuration: LONG)
    set_constant(monkeypatch, "runtime.progress.LOG_EVERY", 1e6)
    assert simulate().stderr == ""
