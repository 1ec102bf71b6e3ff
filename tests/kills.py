"""Kill commands at any moment, and look at what they leave: `python tests/kills.py --kills 20 --seed 0`.

Half of the kills come before a file operation that is drawn among all of the command's, half at a time that is drawn
between its first file operation and its end.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import torch
from click.testing import CliRunner
from helpers import forks
from helpers.waiting import PATIENCE

from dyncollapse.commands.main import main

# Counts the file operations below the working directory, and dies before one of them; 0 only counts.
HOOK = """
import atexit, os, signal, sys, time
last, done, home = int(sys.argv[1]), 0, os.getcwd() + os.sep
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
def watch(event, arguments):
    global done
    if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        return
    if (event in CHANGES or event == "open") and isinstance(arguments[0], (str, os.PathLike)):
        if os.path.abspath(arguments[0]).startswith(home):
            done += 1
            if done == 1:
                sys.stdout.write("begun\\n")
                sys.stdout.flush()
            if done == last:
                os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
from dyncollapse.commands.main import main
try:
    main(sys.argv[2:], prog_name="dyncollapse")
finally:
    if last == 0:
        print("events", done, flush=True)
"""
TOY = ["--dim", "4", "--batch-size", "16", "--pool", "64", "--runs", "2"]


@dataclass(frozen=True)
class Case:
    """A command, how it goes on after a kill, and what of its folder must not be lost."""

    command: tuple[str, ...]
    again: Callable[[Path], tuple[str, ...] | None]
    recorded: Callable[[Path], dict[str, object]]


def read_json(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def arrays_of(path: Path) -> str:
    with np.load(path) as file:
        return str({name: file[name].tobytes() for name in file.files if name != "meta"})


SIMULATE = ("simulate", *TOY, "--steps", "300", "--flow-batches", "2", "--out", "out")
SWEEP = ("sweep", *TOY, "--steps", "300", "--dynamics", "sgd", "--seed", "1:6:6", "--pack", "2", "--workers", "2")
PRETRAIN = ("bridge", "pretrain", "--data", "digits", "--epochs", "1", "--batch-size", "216", "--checkpoint-every", "1")
DIAGNOSE = ("diagnose", "z.npy", "--positives", "z.npy", "--out", "out")
CASES = {
    "simulate": Case(
        SIMULATE,
        lambda out: None if read_json(out / "run.json").get("status") == "finished" else SIMULATE,
        lambda out: {name: arrays_of(out / f"{name}.npz") for name in read_json(out / "run.json").get("dynamics", {})},
    ),
    "sweep": Case(
        (*SWEEP, "--out", "out"),
        lambda _out: (*SWEEP, "--out", "out"),
        lambda out: {path.parent.name: path.stat().st_mtime_ns for path in out.glob("points/[!.]*/run.json")},
    ),
    "pretrain": Case(
        (*PRETRAIN, "--log-every", "1", "--out", "out"),
        lambda out: (
            ("bridge", "pretrain", "--resume", "--out", "out")
            if (out / "config.json").exists()
            else (*PRETRAIN, "--log-every", "1", "--out", "out")
        ),
        # The losses up to the newest checkpoint: the steps after it are taken again.
        lambda out: {
            str(line["step"]): line["loss"]
            for line in lines_of(out / "log.jsonl")
            if line["step"] <= max((int(p.stem[5:]) for p in out.glob("checkpoints/step-*.pt")), default=0)
        },
    ),
    "diagnose": Case(
        DIAGNOSE,
        lambda out: None if (out / "diagnosis.json").exists() else DIAGNOSE,
        lambda out: {path.name: path.stat().st_mtime_ns for path in out.glob("*") if path.name[0] != "."},
    ),
}


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def check_whole(folder: Path) -> None:
    """Read every file that is not hidden, and fail at one that ends early."""
    for path in folder.rglob("*"):
        if path.is_dir() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        content = path.read_bytes()
        match path.suffix:
            case ".json":
                json.loads(content)
            case ".jsonl":
                assert content.endswith(b"\n"), path
                lines_of(path)
            case ".npy":
                np.load(path)
            case ".npz":
                arrays_of(path)
            case ".pt":
                torch.load(path, weights_only=True)
            case ".png":
                assert content.endswith(b"IEND\xaeB`\x82"), path
            case ".csv":
                rows = list(csv.reader(content.decode().splitlines()))
                assert content.endswith(b"\n"), path
                assert len({len(row) for row in rows}) == 1, path
            case ".html":
                assert content.endswith(b"</html>\n"), path
            case _:
                assert "tensorboard" in path.parts, f"{path} is not known"


def names(folder: Path) -> set[str]:
    """What a finished command leaves, without names that differ between runs."""
    return {path.name for path in folder.iterdir() if path.name != "tensorboard"} if folder.exists() else set()


def start(command: tuple[str, ...], home: Path, last: int) -> forks.Program:
    return forks.start(["-c", HOOK, last, *command], home, stdout=subprocess.PIPE, start_new_session=True)


def go_on(command: tuple[str, ...], home: Path) -> None:
    """Run a command here, where everything is imported already; it must succeed."""
    before = os.getcwd()
    os.chdir(home)
    try:
        result = CliRunner().invoke(main, list(command))
    finally:
        os.chdir(before)
    assert result.exit_code == 0, (command, result.stderr, result.exception)


def group_ended(group: int, within: float = PATIENCE) -> bool:
    """Whether nothing of a killed command is alive so many seconds after it."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        with suppress(ProcessLookupError):
            os.killpg(group, 0)
            time.sleep(0.02)
            continue
        return True
    return False


def measure(case: Case, home: Path) -> tuple[int, float, set[str]]:
    """File operations of the whole command, seconds from the first of them to the end, and what it leaves."""
    process = start(case.command, home, 0)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "begun\n"
        begun = time.monotonic()
        rest = process.stdout.read()
    assert process.wait() == 0
    return int(rest.rsplit("events", 1)[1]), time.monotonic() - begun, names(home / "out")


def kill(case: Case, home: Path, last: int, seconds: float) -> tuple[bool, bool]:
    """Kill the command before its operation `last`, or so many seconds after its first.

    Returns whether it was still alive, and whether all that it started has ended soon.
    """
    process = start(case.command, home, last)
    assert process.stdout is not None
    if not last:
        process.stdout.readline()
        time.sleep(seconds)
        process.kill()
    with process.stdout:
        process.wait()
    return process.returncode == -signal.SIGKILL, group_ended(process.pid)


def look_after(case: Case, home: Path, expected: set[str]) -> str:
    """What is wrong with what the killed command left, or with what going on with it leads to; nothing, as a rule."""
    out = home / "out"
    try:
        check_whole(home)
        before = case.recorded(out)
    except (AssertionError, ValueError, OSError) as error:
        return f"half-written: {error}"
    command = case.again(out)
    try:
        if command is not None:
            go_on(command, home)
    except AssertionError as error:
        return f"blocked: {error}"
    try:
        check_whole(home)
        after = case.recorded(out)
    except (AssertionError, ValueError, OSError) as error:
        return f"half-written: {error}"
    if lost := {name for name, value in before.items() if after.get(name) != value}:
        return f"lost: {lost}"
    # A simulation that was killed after its results were saved lacks the picture and the page, and says so by its end.
    if missing := expected - names(out) - ({"spectrum.png", "report.html"} if command is None else set()):
        return f"lost: {missing}"
    if command is not None and (left := [path.name for path in home.rglob(".*")]):
        return f"left: {left}"
    return ""


def killed(name: str, kills: int, seed: int) -> Iterator[tuple[str, bool, str]]:
    """Kill a command of CASES so often, each time in a new folder; yield when, whether it was alive, what is wrong."""
    case, generator = CASES[name], random.Random(f"{name} {seed}")
    z = np.random.default_rng(0).standard_normal((200, 8)).astype("f4")
    with TemporaryDirectory() as temporary:
        homes = [Path(temporary) / str(k) for k in range(kills + 1)]
        for home in homes:
            home.mkdir()
            np.save(home / "z.npy", z)
        operations, seconds, expected = measure(case, homes[0])
        for k, home in enumerate(homes[1:]):
            last = 0 if k % 2 else generator.randint(1, operations)
            moment = generator.uniform(0, seconds)
            alive, ended = kill(case, home, last, moment)
            at = f"before operation {last} of {operations}" if last else f"after {moment:.2f} of {seconds:.2f} s"
            wrong = look_after(case, home, expected)
            yield at, alive, wrong or ("" if ended else "alive: processes that it had started")


def report() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=CASES)
    arguments = parser.parse_args()
    kinds = ("half-written", "lost", "blocked", "left", "alive")
    click.echo(f"| command | kills | done by then | {' | '.join(kinds)} |\n|---|---|---|---|---|---|---|---|")
    violations = 0
    for name in [arguments.only] if arguments.only else CASES:
        found = []
        for moment, alive, wrong in killed(name, arguments.kills, arguments.seed):
            click.echo(f"{name}: {moment}{'' if alive else ', done by then'} {wrong}", err=True)
            found.append((alive, wrong))
        counts = [sum(wrong.startswith(kind) for _, wrong in found) for kind in kinds]
        click.echo(f"| {name} | {len(found)} | {sum(not a for a, _ in found)} | {' | '.join(map(str, counts))} |")
        violations += sum(counts)
    sys.exit(violations > 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    report()
