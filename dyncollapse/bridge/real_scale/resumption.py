"""Part 5: check that a run that is killed and resumed has the losses of an uninterrupted one."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from dyncollapse.bridge.presets import resolve
from dyncollapse.bridge.real_scale.findings import Finding, PartResult, Site
from dyncollapse.bridge.real_scale.synthetic_images import write_jpegs
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.bridge.training.checkpoints import checkpoints
from dyncollapse.bridge.training.distributed import Process
from dyncollapse.bridge.training.pretraining import pretrain
from dyncollapse.bridge.training.training_log import read_log
from dyncollapse.runtime.process import default_threads

LOOK = 0.01  # seconds between two checks for the first checkpoint
# Relative difference of losses. With `--deterministic` it should be 0, also on a GPU, where it has not been measured. A
# lost state (momentum, rate, order) changes losses by 1e-2 and more (on a CPU, tests/bridge/real_scale/test_parts.py).
AGREES = 1e-4


def measure(site: Site) -> PartResult:
    """Compare an uninterrupted run with one that is killed after its first checkpoint and resumed.

    Args:
        site: Where to work.

    Returns:
        Differences of the losses.
    """
    site.tell(f"{site.scale.killed_steps} steps without interruption")
    classes = 4
    write_jpegs(site.folder / "small" / "train", classes, site.scale.killed_images // classes, ((64, 64),))
    recipe, steps = killed_recipe(site), site.scale.killed_steps
    whole, parts = site.folder / "whole", site.folder / "killed"
    torch.set_num_threads(recipe.threads or default_threads())  # as the command does
    pretrain(recipe, whole, Process(0, 1, site.device))
    site.tell("the same run, to be killed after its first checkpoint")
    died_at = _killed(recipe, parts)
    killed = Finding(f"step of the SIGKILL, of {steps}", died_at, limit=steps - 1)
    site.save(PartResult([killed]))
    site.tell(f"killed at step {died_at}; resuming")
    resume = _command("--resume", "--out", str(parts))
    finished = subprocess.run(resume, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise RuntimeError(f"--resume ended with {finished.returncode}: {_last_line(finished.stderr)}")
    if "going on from" not in finished.stderr:
        raise RuntimeError("--resume started from the beginning instead of the checkpoint")
    expected, got = ([line["loss"] for line in read_log(folder / "log.jsonl")] for folder in (whole, parts))
    differences = compare(expected, got)
    findings = [
        killed,
        Finding("losses of the resumed run, one per step", len(got), limit=steps, least=True),
        Finding("largest relative difference from the uninterrupted run's losses", max(differences), limit=AGREES),
        Finding("share of losses that agree to the last bit", differences.count(0.0) / len(differences)),
    ]
    values = {"steps": steps, "died_at": died_at, "loss": expected, "resumed_loss": got, "recipe": recipe.as_dict()}
    return PartResult(findings, values)


def compare(expected: Sequence[float], got: Sequence[float]) -> list[float]:
    """Relative differences by step; infinite if the numbers of losses differ."""
    if len(expected) != len(got) or not got:
        return [float("inf")]
    return [abs(a - b) / abs(b) for a, b in zip(got, expected, strict=True)]


def killed_recipe(site: Site) -> Recipe:
    """Return the recipe of the run that is killed: one loss a step, and the same numbers in every run."""
    settings = {**site.scale.killed, "data": str(site.folder / "small"), "device": str(site.device)}
    settings |= {"pipeline": "memory", "optimiser": "sgd", "lr": 0.3, "deterministic": True, "tensorboard": False}
    per_epoch = site.scale.killed_images // settings["batch_size"]
    settings |= {"epochs": site.scale.killed_steps // per_epoch, "log_every": 1, "monitor_every": 0}
    settings |= {"checkpoint_every": site.scale.checkpoint_every}
    return resolve(settings)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dyncollapse", "bridge", "pretrain", *arguments]


def _killed(recipe: Recipe, folder: Path) -> int:
    """Run the command until it has a checkpoint and kill it; return its last step."""
    config = folder.with_suffix(".toml")
    settings = {name: value for name, value in recipe.as_dict().items() if value is not None}
    config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    process = subprocess.Popen(
        _command("--config", str(config), "--out", str(folder)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        while not checkpoints(folder):
            if process.poll() is not None:
                assert process.stderr is not None
                raise RuntimeError(f"the run ended by itself: {_last_line(process.stderr.read().decode())}")
            time.sleep(LOOK)
    finally:
        process.kill()
        process.communicate()
    if process.returncode != -signal.SIGKILL:
        raise RuntimeError(f"the run had ended with {process.returncode} before it could be killed; give it more steps")
    return int(read_log(folder / "log.jsonl")[-1]["step"])


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["without a word"])[-1]
