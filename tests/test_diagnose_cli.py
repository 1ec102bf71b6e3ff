"""`dyncollapse diagnose` on files good and bad, as a user calls it."""

import csv
import errno
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from commands import refused

from dyncollapse.cli import main

MEASURES = [
    "rankme",
    "effective_rank",
    "participation_ratio",
    "participation_ratio_unbiased",
    "stable_rank",
    "alpha_req",
    "lidar",
]
KEYS = {
    "samples",
    "dim",
    "space",
    "conventions",
    "spectrum",
    "noise_floor",
    "collapsed",
    "measures",
    "intervals",
    "augmentation_ratio",
    "augmentation_share",
    "verdict",
    "warnings",
    "config",
}
SAVED = {"diagnosis.json", "spectrum.csv", "report.html", "spectrum.png"}
DIM, ALIVE = 12, 8


def refuse_constant(name):
    raise AssertionError(f"{name} in JSON")


def as_json(text):
    return json.loads(text, parse_constant=refuse_constant)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the user is, with embeddings of 12 dimensions, 8 of them alive, in three views, and a layer's inputs."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    layer = np.diag([1.0] * ALIVE + [0.0] * (DIM - ALIVE)) @ np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    clean = rng.standard_normal((400, DIM))
    noise = np.array([0.1] * ALIVE + [2.0] * (DIM - ALIVE))
    for name in "abc":
        inputs = clean + noise * rng.standard_normal((400, DIM))
        np.save(f"{name}-in.npy", inputs)
        np.save(f"{name}.npy", (inputs @ layer).astype("f4"))
    return tmp_path


@pytest.fixture
def diagnose(folder):  # noqa: ARG001 (the user has to be somewhere)
    return lambda *options: CliRunner().invoke(main, ["diagnose", *map(str, options)])


def fine(result):
    assert result.exit_code == 0, (result.stderr, result.exception)
    return result


# ------------------------------------------------------------------------------------------------------ what is printed


def test_report_for_eyes(diagnose):
    shown = fine(diagnose("a.npy")).stdout
    assert shown.startswith("a.npy: 400 samples x 12 dimensions, float32, not normalised, embedding\n")
    for words in ("log10 of covariance eigenvalues", "noise floor", "collapsed below", "4 dimensions of 12 collapsed"):
        assert words in shown
    assert all(f"\n{name} " in shown for name in MEASURES)
    assert "Saved" not in shown


def test_json_has_the_contract_and_is_alone_on_stdout(diagnose):
    result = fine(diagnose("a.npy", "--json"))
    assert len(result.stdout.splitlines()) == 1
    found = as_json(result.stdout)
    assert set(found) == KEYS
    assert (found["samples"], found["dim"], found["space"], found["collapsed"]) == (400, DIM, "embedding", 4)
    assert len(found["spectrum"]) == DIM == len(found["verdict"]["dimensions"])
    assert found["spectrum"] == sorted(found["spectrum"], reverse=True)
    assert list(found["measures"]) == MEASURES
    assert set(found["intervals"]) == {*MEASURES, "collapsed"}
    assert found["augmentation_ratio"] is found["augmentation_share"] is found["measures"]["lidar"] is None
    assert found["measures"]["rankme"] == pytest.approx(ALIVE, rel=0.1)
    config = found["config"]
    assert (config["file"], config["positives"], config["inputs"], config["seed"]) == ("a.npy", [], None, 0)
    assert {"dyncollapse", "torch", "python"} <= set(config["versions"])
    assert "4 dimensions of 12 collapsed" in result.stderr


def test_csv_round_trips(diagnose):
    options = ("a.npy", "--positives", "b.npy")
    result = fine(diagnose(*options, "--csv"))
    found = as_json(fine(diagnose(*options, "--json")).stdout)
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert [float(row["eigenvalue"]) for row in rows] == found["spectrum"]
    assert [int(row["dimension"]) for row in rows] == list(range(1, DIM + 1))
    for row, expected in zip(rows, found["verdict"]["dimensions"], strict=True):
        assert row["collapsed"] == str(expected["collapsed"])
        assert (row["mechanism"], row["fate"]) == (expected["mechanism"], expected["fate"])
        assert (float(row["rho"]) if row["rho"] else None) == expected["rho"]
    assert "Collapsed means" in result.stderr


def test_html_is_the_page(diagnose):
    result = fine(diagnose("a.npy", "--html"))
    assert result.stdout.startswith("<!DOCTYPE html>")
    assert result.stdout.endswith("</html>\n")
    assert "4 dimensions of 12 collapsed" in result.stderr


def test_two_formats_at_once_are_refused(diagnose):
    assert "--json and --csv cannot share stdout" in refused(diagnose("a.npy", "--csv", "--json"))


# ------------------------------------------------------------------------------------------------------------- settings


def test_two_views_tell_ratios_and_three_tell_lidar(diagnose):
    two = as_json(fine(diagnose("a.npy", "--positives", "b.npy", "--json")).stdout)
    three = as_json(fine(diagnose("a.npy", "--positives", "b.npy", "--positives", "c.npy", "--json")).stdout)
    assert len(two["augmentation_ratio"]) == len(three["augmentation_ratio"]) == ALIVE
    assert two["augmentation_share"] == 0
    assert two["measures"]["lidar"] is None
    assert 1 < three["measures"]["lidar"] <= ALIVE
    assert three["config"]["positives"] == ["b.npy", "c.npy"]


def test_inputs_of_the_last_layer_tell_why(diagnose):
    given = ("--positives", "b.npy", "--inputs", "a-in.npy", "--input-positives", "b-in.npy")
    found = as_json(fine(diagnose("a.npy", *given, "--json")).stdout)
    assert found["verdict"]["mechanism"] in {"strong-augmentation", "implicit-regularization"}
    assert len(found["augmentation_ratio"]) == DIM
    assert found["config"]["inputs"] == "a-in.npy"
    assert "last layer's inputs" in fine(diagnose("a.npy", *given, "--views", "one-sided")).stdout


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        (["--loss", "infonce"], "infonce"),
        (["--loss", "infonce", "--views", "one-sided"], "infonce"),
        (["--loss", "dot"], "dot"),
        (["--loss", "ntxent", "--temperature", "0.2"], "ntxent"),
    ],
)
def test_losses_weigh_negatives(diagnose, options, weights):
    result = fine(diagnose("a.npy", "--positives", "b.npy", *options, "--json"))
    assert as_json(result.stdout)["conventions"]["weights"] == weights
    assert f"softmax of {weights}" in result.stderr


def test_svd_digs_deeper_and_fast_less_deep(diagnose):
    floors = [as_json(fine(diagnose("a.npy", *o, "--json")).stdout)["noise_floor"] for o in (["--svd"], [], ["--fast"])]
    assert floors == sorted(floors)
    assert floors[1] < floors[2] / 10


def test_key_names_the_array(diagnose):
    np.savez("both.npz", first=np.load("a.npy")[:, :5], second=np.load("a.npy"))
    assert as_json(fine(diagnose("both.npz", "--key", "first", "--json")).stdout)["dim"] == 5


def test_seed_repeats_the_sample(diagnose):
    def interval(seed):
        options = ("--sample", 50, "--seed", seed, "--json")
        return as_json(fine(diagnose("a.npy", *options)).stdout)["intervals"]["rankme"]

    assert interval(1) == interval(1) != interval(2)


# ------------------------------------------------------------------------------------------------------------ odd files


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.random.default_rng(1).standard_normal((50, 1)), "No dimension of 1 collapsed"),
        (np.random.default_rng(1).standard_normal((50, 2)), "No dimension of 2 collapsed"),
        (np.random.default_rng(1).standard_normal((2, 5)), "warning: 2 samples of 5 dimensions"),
        (np.random.default_rng(1).standard_normal((2, 1)), ""),
        (np.ones((50, 4), "f4"), "nothing varies"),
        (np.zeros((50, 4), "f4"), "nothing varies"),
        (np.random.default_rng(1).integers(-9, 9, (60, 4)).astype("i2"), "int16"),
        (np.random.default_rng(1).standard_normal((60, 4)).astype("f2"), "values are rounded to float16"),
        (np.random.default_rng(1).standard_normal((60, 4)) * 1e-30, "No dimension of 4 collapsed"),
        (np.random.default_rng(1).standard_normal((60, 4)) * 1e100, "No dimension of 4 collapsed"),
    ],
    ids=["d=1", "d=2", "n=2", "n=2,d=1", "constant", "zero", "integers", "half", "tiny", "huge"],
)
def test_odd_arrays_are_told_in_every_form(diagnose, tmp_path, array, words):
    np.save("odd.npy", array)
    assert words in fine(diagnose("odd.npy", "--out", "saved")).stdout
    assert {path.name for path in (tmp_path / "saved").iterdir()} == SAVED
    found = as_json((tmp_path / "saved/diagnosis.json").read_text())
    assert (found["samples"], found["dim"]) == array.shape
    assert len((tmp_path / "saved/spectrum.csv").read_text().splitlines()) == 1 + array.shape[1]
    same_views = ("--positives", "odd.npy") * 2
    assert as_json(fine(diagnose("odd.npy", *same_views, "--json")).stdout)["dim"] == array.shape[1]


NAMES = ["[red]x[/nope].npy", "a b.npy", "new\nline.npy", "x\x1b[31m.npy", "<script>alert(1)<&.npy", "Zürich ±.npy"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_are_shown_and_not_interpreted(diagnose, folder, name):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    np.save(path, np.load("a.npy"))
    first = fine(diagnose(name, "--positives", name, "--space", "[red]s[/nope]")).stdout.splitlines()[0]
    plain = name.replace("\n", r"\n").replace("\x1b", r"\x1b")
    assert first == f"{plain}: 400 samples x 12 dimensions, float32, not normalised, [red]s[/nope]"
    assert as_json(fine(diagnose(path, "--json")).stdout)["config"]["file"] == str(path)
    page = fine(diagnose(path, "--html")).stdout
    assert "<script" not in page
    assert page.isascii()


# ------------------------------------------------------------------------------------------------------------ bad input


def refuse(options, words):
    return pytest.param(options, words, id=" ".join(options))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        refuse([], "Missing argument 'FILE'"),
        refuse(["missing.npy"], "missing.npy does not exist"),
        refuse(["."], ". is a directory"),
        refuse(["bytes.npy"], "bytes.npy is an empty file"),
        refuse(["none.npy"], "of shape (0, 4)"),
        refuse(["row.npy"], "at least 2 rows"),
        refuse(["flat.npy"], "flat.npy has shape (3,)"),
        refuse(["cube.npy"], "cube.npy has shape (2, 3, 4)"),
        refuse(["objects.npy"], "pickled objects"),
        refuse(["model.pt"], "looks like a model"),
        refuse(["nan.npy"], "hold 3 NaN or infinite number(s), the first in row 3, column 2"),
        refuse(
            ["a.npy", "--positives", "nan12.npy"], "hold 1 NaN or infinite number(s), the first in row 399, column 11"
        ),
        refuse(["overflow.npy"], "squares overflow"),
        refuse(["a.npy", "--positives", "small.npy"], "(400, 12) and (50, 2)"),
        refuse(["a.npy", "--positives", "b.npy", "--positives", "small.npy"], "(400, 12) and (50, 2)"),
        refuse(["a.npy", "--positives", "missing.npy"], "missing.npy does not exist"),
        refuse(["a.npy", "--inputs", "a.npy"], "go together"),
        refuse(["a.npy", "--input-positives", "a.npy"], "go together"),
        refuse(["a.npy", "--inputs", "small.npy", "--input-positives", "small.npy"], "50 inputs and 400 embeddings"),
        refuse(["a.npy", "--loss", "infonce"], "give the other view"),
        refuse(["a.npy", "--positives", "b.npy", "--loss", "hinge"], "'hinge'; choose one of"),
        refuse(["a.npy", "--positives", "b.npy", "--views", "both"], "'both'; choose one of"),
        refuse(["a.npy", "--views", "one-sided"], "there are none; give --positives"),
        refuse(["a.npy", "--positives", "b.npy", "--loss", "ntxent", "--temperature", "0"], "above 0"),
        refuse(["a.npy", "--positives", "b.npy", "--loss", "infonce", "--temperature", "1"], "infonce loss has none"),
        refuse(["a.npy", "--positives", "b.npy", "--loss", "ntxent", "--views", "one-sided"], "needs two-sided views"),
        refuse(["a.npy", "--sample", "1"], "at least 2 rows"),
        refuse(["a.npy", "--sample", "many"], "'many' is not a valid integer"),
        refuse(["a.npy", "--seed", "99999999999999999999"], "--seed"),
        refuse(["a.npy", "--key", "z"], "leave out --key"),
        refuse(["two.npz"], "choose one with --key"),
        refuse(["two.npz", "--key", "z"], "no array named z"),
        refuse(["a.npy", "--nonsense"], "No such option"),
        refuse(["a.npy", "--out", "full"], "full already holds files"),
        refuse(["a.npy", "--out", "a.npy"], "cannot be written"),
        refuse(["a.npy", "--out", "a.npy/below"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_2_and_leaves_nothing(diagnose, folder, options, words):
    (folder / "bytes.npy").touch()
    bad = np.ones((20, 4))
    bad[3, 2], bad[3, 3], bad[10, 1] = np.nan, np.inf, -np.inf
    late = np.load("b.npy")
    late[-1, -1] = np.inf
    arrays = {"none": np.ones((0, 4)), "row": np.ones((1, 4)), "flat": np.ones(3), "cube": np.ones((2, 3, 4))}
    arrays |= {"objects": np.array([[1, "a"]], dtype=object), "small": np.ones((50, 2)), "nan": bad, "nan12": late}
    arrays["overflow"] = np.array([[1e200, 1.0], [-1e200, 2.0]])
    for name, array in arrays.items():
        np.save(f"{name}.npy", array, allow_pickle=True)
    np.savez("two.npz", x=np.ones((5, 2)), y=np.ones((5, 2)))
    torch.save(torch.nn.Linear(3, 3).state_dict(), "model.pt")
    (folder / "full").mkdir()
    (folder / "full/mine").touch()
    before = sorted(folder.rglob("*"))
    out = [] if "--out" in options or not options else ["--out", "new"]
    assert words in refused(diagnose(*options, *out))
    assert sorted(folder.rglob("*")) == before


# --------------------------------------------------------------------------------------------------------------- saving


@pytest.mark.usefixtures("folder")
def test_one_file_may_hold_both_views(diagnose):
    np.savez("both.npz", z=np.load("a.npy"), z_pos=np.load("b.npy"))
    apart = as_json(fine(diagnose("a.npy", "--positives", "b.npy", "--json")).stdout)
    together = as_json(fine(diagnose("both.npz:z", "--positives", "both.npz:z_pos", "--json")).stdout)
    assert {**apart, "config": 0} == {**together, "config": 0}
    assert "has no array named p" in refused(diagnose("both.npz:p"))


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


# -------------------------------------------------------------------------------------------------- around the terminal


def start(*options, **settings):
    """The command in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error", **settings.pop("env", {})}
    command = [sys.executable, "-m", "dyncollapse", "diagnose", *options]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, **settings)


def test_output_that_is_no_utf8_is_plain_and_nothing_crashes(folder):
    (folder / "a.npy").rename(folder / "Zürich ±.npy")
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    process = start("Zürich ±.npy", "--out", "new", env=env, stdout=subprocess.PIPE)
    shown, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert shown.isascii()
    assert rb"rich" in shown.splitlines()[0]
    assert b"| *   *   *" in shown
    assert b"====" in shown
    assert {path.name for path in (folder / "new").iterdir()} == SAVED


def test_columns_of_a_narrow_terminal_are_kept(folder):
    pty = pytest.importorskip("pty")
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 60, 0, 0))
    hidden = {"COLUMNS": "", "LINES": "", "TERM": "xterm", "NO_COLOR": "1"}
    process = start("a.npy", env=hidden, stdout=theirs, cwd=folder)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # Linux says so when the other end is closed
        pass
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()
    blank = [number for number, line in enumerate(lines) if not line.strip()]
    chart_and_table = lines[blank[0] : blank[2]]
    assert max(map(len, chart_and_table)) <= 60
    assert any(line.startswith("participation_ratio_unbiased ") for line in chart_and_table)
    assert not any("…" in line for line in lines)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_full_disk_behind_stdout_is_one_line(folder):
    with open("/dev/full", "wb") as full:
        process = start("a.npy", stdout=full, cwd=folder)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.decode().splitlines()[-1].startswith("dyncollapse: standard output could not be written")
    assert b"Traceback" not in errors


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_reader_that_leaves_ends_the_command_quietly_after_saving(folder):
    reading, writing = os.pipe()
    process = start("a.npy", "--out", "new", stdout=writing, cwd=folder)
    os.close(reading)
    os.close(writing)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == b""
    assert {path.name for path in (folder / "new").iterdir()} == SAVED


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ten_gigabytes_open_at_once_and_stop_at_ctrl_c(folder):
    rows = 20_000_000
    with open(folder / "ten.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, 128)})
        file.truncate(file.tell() + rows * 128 * 4)
    watched = (
        "import sys, dyncollapse.cli, dyncollapse.monitor as monitor\n"
        "whole = monitor.Monitor.update\n"
        "def told(done, total):\n"
        "    print(done, total, flush=True)\n"
        "def update(self, *views, progress=None):\n"
        "    return whole(self, *views, progress=told)\n"
        "monitor.Monitor.update = update\n"
        "dyncollapse.cli.main(['diagnose', 'ten.npy', '--out', 'new'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", watched],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A suite that runs in the background hands down an ignored Ctrl-C; a user's terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        told = [process.stdout.readline().split() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    done = [int(count) for count, _ in told]
    assert 0 < done[0] < done[1] < done[2] < rows
    assert {total for _, total in told} == {str(rows)}
    assert process.returncode == 130
    assert errors == "dyncollapse: Interrupted; nothing was saved.\n"
    assert not (folder / "new").exists()


def test_help_names_every_option():
    shown = CliRunner().invoke(main, ["diagnose", "--help"]).output
    for option in ("positives", "inputs", "input-positives", "key", "views", "loss", "temperature", "space", "svd"):
        assert f"--{option} " in shown
    for option in ("fast", "sample", "seed", "out", "json", "csv", "html"):
        assert f"--{option} " in shown
