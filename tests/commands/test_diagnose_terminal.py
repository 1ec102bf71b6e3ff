import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers.diagnose_command import SAVED
from helpers.forks import running
from helpers.terminals import shown_on_terminal
from helpers.waiting import ONE_THREAD, PATIENCE

# -------------------------------------------------------------------------------------------------- around the terminal


DIAGNOSE = ["-W", "error", "-m", "dyncollapse", "diagnose"]


def start(*options, **settings):
    """The command as Python starts it."""
    environment = {**ONE_THREAD, **settings.pop("env", {})}
    return subprocess.Popen([sys.executable, *DIAGNOSE, *options], env=environment, stderr=subprocess.PIPE, **settings)


def test_output_that_is_no_utf8_is_plain_and_nothing_crashes(folder):
    (folder / "a.npy").rename(folder / "Zürich ±.npy")
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    process = start("Zürich ±.npy", "--out", "new", env=env, stdout=subprocess.PIPE)
    shown, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert shown.isascii()
    assert rb"rich" in shown.splitlines()[0]
    assert b"| *   *   *" in shown
    assert b"====" in shown
    assert {path.name for path in (folder / "new").iterdir()} == SAVED


def test_columns_of_a_narrow_terminal_are_kept(folder):
    code, lines = shown_on_terminal([*DIAGNOSE, "a.npy"], folder, 60)
    assert code == 0, lines
    assert max(map(len, lines)) <= 60
    assert any(line.startswith("participation_ratio_unbiased ") for line in lines)
    assert not any("…" in line for line in lines)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
@pytest.mark.parametrize("unbuffered", [False, True])
def test_full_disk_behind_stdout_is_one_line(folder, unbuffered):
    with open("/dev/full", "wb") as full:
        if unbuffered:  # Python looks for it when it starts
            process = start("a.npy", stdout=full, cwd=folder, env={"PYTHONUNBUFFERED": "1"})
            errors = process.communicate(timeout=PATIENCE)[1].decode()
        else:
            with running([*DIAGNOSE, "a.npy"], folder, stdout=full) as (process, told):
                process.wait(PATIENCE)
            errors = told()
    assert process.returncode == 1
    (line,) = errors.splitlines()
    assert line.startswith("dyncollapse: standard output could not be written")


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_reader_that_leaves_ends_the_command_quietly_after_saving(folder):
    reading, writing = os.pipe()
    with running([*DIAGNOSE, "a.npy", "--out", "new"], folder, stdout=writing) as (process, errors):
        os.close(reading)
        os.close(writing)
        assert process.wait(PATIENCE) == 1
    assert errors() == ""
    assert {path.name for path in (folder / "new").iterdir()} == SAVED


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ten_gigabytes_open_at_once_and_stop_at_ctrl_c(folder):
    rows = 20_000_000
    with open(folder / "ten.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, 128)})
        file.truncate(file.tell() + rows * 128 * 4)
    watched = (
        "import sys, dyncollapse.commands.main, dyncollapse.diagnostics.monitor as monitor\n"
        "whole = monitor.Monitor.update\n"
        "def told(done, total):\n"
        "    print(done, total, flush=True)\n"
        "def update(self, *views, progress=None):\n"
        "    return whole(self, *views, progress=told)\n"
        "monitor.Monitor.update = update\n"
        "dyncollapse.commands.main.main(['diagnose', 'ten.npy', '--out', 'new'])\n"
    )
    with running(["-c", watched], folder, stdout=subprocess.PIPE) as (process, errors):
        told = [process.stdout.readline().split() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(PATIENCE) == 130
    done = [int(count) for count, _ in told]
    assert 0 < done[0] < done[1] < done[2] < rows
    assert {total for _, total in told} == {str(rows)}
    assert errors() == "dyncollapse: Interrupted; nothing was saved.\n"
    assert not (folder / "new").exists()
