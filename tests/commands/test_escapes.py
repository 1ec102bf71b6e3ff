"""No command lets a name or a text from elsewhere do anything to the terminal."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.hostile_values import ESCAPES, shown_safely
from helpers.programs import refused

from dyncollapse.commands.main import main

NAME = ESCAPES.replace("\udc80", "")  # as files may be called

COMMANDS = [
    *(["simulate", option, ESCAPES] for option in ("--loss", "--device", "--preset", "--dim", "--lr", "--dynamics")),
    ["simulate", ESCAPES],
    ["simulate", f"--{ESCAPES}"],
    [ESCAPES],
    *(["explore", option, ESCAPES] for option in ("--port", "--copy")),
    ["verify", "--claim", ESCAPES],
    *(["sweep", "--out", "x", option, ESCAPES] for option in ("--loss", "--dim", "--lr", "--executor", "--scheduler")),
    ["sweep", "--out", "x", "--device", f"cpu,{ESCAPES}"],
    ["sweep", "--out", "x", "--executor", "slurm", "--slurm", ESCAPES],
    ["collect", ESCAPES],
    ["collect", "x", "--out", ESCAPES],
    ["diagnose", ESCAPES],
    ["diagnose", "here.npy", "--key", ESCAPES],
    ["diagnose", "here.npy", "--positives", ESCAPES],
    ["diagnose", "here.npy", "--loss", ESCAPES],
    ["diagnose", "here.npy", "--positives", "here.npy", "--views", ESCAPES],
    ["bridge", "table", ESCAPES],
    *(["bridge", "pretrain", "--data", "digits", option, ESCAPES] for option in ("--arch", "--stem", "--config")),
    ["bridge", "pretrain", "--data", ESCAPES],
    ["bridge", "pretrain", "--data", "digits", "--config", "esc.toml"],
    ["bridge", "pretrain", "--resume", "--out", ESCAPES],
    ["bridge", "embed", "--checkpoint", ESCAPES, "--data", "digits"],
    ["bridge", "embed", "--checkpoint", "x", "--data", "digits", "--space", ESCAPES],
    ["bridge", "embed", "--checkpoint", "x", "--data", "digits", "--prefix-map", ESCAPES],
    ["bridge", "probe", "--checkpoint", "x", "--data", "digits", "--method", ESCAPES],
    ["bridge", "check", "--device", ESCAPES],
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "here.npy", np.random.default_rng(0).normal(size=(50, 4)))
    (tmp_path / "esc.toml").write_text(f"{json.dumps(NAME)} = 1\n")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=map(str, range(len(COMMANDS))))
@pytest.mark.usefixtures("here")
def test_what_is_refused_is_shown(command):
    assert shown_safely(refused(CliRunner().invoke(main, command)))


def test_names_of_files_and_spaces_are_shown(here):
    shutil.copy(here / "here.npy", here / f"{NAME}.npy")
    out = CliRunner().invoke(main, ["diagnose", f"{NAME}.npy", "--space", ESCAPES, "--out", NAME])
    assert out.exit_code == 0
    assert shown_safely(out.stdout + out.stderr)
    for form in ("--json", "--csv", "--html"):
        shown = CliRunner().invoke(main, ["diagnose", f"{NAME}.npy", "--space", ESCAPES, form])
        assert shown.exit_code == 0
        assert shown_safely(shown.stdout + shown.stderr), form


@pytest.mark.usefixtures("here")
def test_folders_of_simulations_and_sweeps_are_shown():
    small = ["--dim", "2", "--batch-size", "4", "--pool", "8", "--steps", "2", "--runs", "1", "--dynamics", "sgd"]
    for command in (["simulate", *small, "--out", NAME], ["sweep", *small, "--workers", "1", "--out", f"{NAME}2"]):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.stderr
        assert shown_safely(done.stdout + done.stderr)
    again = CliRunner().invoke(main, ["simulate", *small, "--out", NAME])
    assert shown_safely(refused(again))
    table = CliRunner().invoke(main, ["collect", f"{NAME}2", "--out", f"{NAME}.csv"])
    assert table.exit_code == 0
    assert shown_safely(table.stdout + table.stderr)
