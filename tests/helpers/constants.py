"""The constants of the package that tests set, each with the reason why no test can do without.

Tests set no other: `tests/test_constants.py` looks.
"""

import pytest

SIZES = {
    "model._kernels.MOST_BYTES": "several parts take megabytes of softmax weights",
    "model._kernels.WIDEST": "forces by PyTorch are taken for large batches",
    "model._blocks.TILE": "several tiles take thousands of pairs, and the dense form their square",
    "model._drawing.DRAWN": "a second draw takes ten thousands of anchors",
    "model._drawing.SHARED": "several streams take hundreds of thousands of numbers per step",
    "dynamics._kernels.WORTH_A_SHARE": "several shares take hundreds of thousands of numbers per step",
    "dynamics._kernels.WORTH_A_THREAD": "small runs are worth no thread",
    "formats.delimited.BLOCK": "a second block takes a million numbers of text",
    "formats.parquet.BLOCK": "a second batch takes a million numbers",
    "formats.hdf5.BLOCK": "a second read takes a million numbers",
    "formats.archives.FREE": "what unpacks to too much takes a gigabyte",
    "diagnostics.tokens.BLOCK_BYTES": "a second block takes 32 MB of tokens",
    "diagnostics.shards.PARTS": "several shards in a part take more than 64 shards",
    "diagnostics.monitor.BLOCK_BYTES": "a second block takes 32 MB of rows",
    "diagnostics.moments.FEWEST_ROWS": "a second block takes hundreds of rows",
    "diagnostics.moments.MOST_ROWS": "a second block takes thousands of rows",
    "diagnostics.moments.BLOCKS_PER_PARTIAL": "a second partial sum takes dozens of blocks",
    "bridge.data.batches.CHUNK": "several chunks of a batch take dozens of images",
    "commands.console.WIDTH_OF_FILES": "narrow screens, without a terminal",
    "bridge.data.augmentations.LONGEST": "shows what the square of a strip would be without a limit on its length",
}
TIMES = {
    "sweeps.estimate.GLANCE": "a record of the start that takes longer than the look needs a simulation of minutes",
    "sweeps.estimate.SHORT": "what settings do not show to be short takes seconds",
    "runtime.progress.LOG_EVERY": "a line of progress comes after 10 s",
    "commands.simulate.LONG": "a simulation is announced as long from 30 s on",
    "commands.shared.HELD_BACK": "notes are held back for 10 s",
    "runtime.executors.CONNECT": "a scheduler that does not answer is waited for 10 s",
    "runtime.executors.GRACE": "on a slow machine, a cancelled job ends later than after 10 s",
    "runtime.executors.ASK_QUEUE": "Slurm is asked every 20 s",
    "bridge.real_scale.cifar.ROOM": "a row for which no time is left takes minutes to come about",
}
PARTS = {
    "bridge.real_scale.report.PARTS": "parts that fail, die and hang, and more time for the real ones",
    "bridge.real_scale.throughput.VARIANTS": "two networks of four: pretending a GPU is slow",
    "bridge.real_scale.cifar.ORDER": "two rows of nine: pretending a GPU is slow",
    "bridge.evaluation.check_rows.SHORT_HEADS": "two rows: each is trained",
    "bridge.evaluation.check_rows.SHORT_SUBVECTORS": "one row: each is trained",
    "bridge.evaluation.check_plan.SHORT_HEADS": "two rows: each is trained",
    "bridge.evaluation.probe.STRENGTHS": "three strengths of decay: to fit digits with little of it takes seconds",
    "bridge.evaluation.probe.WEAKER": "no weaker decay: to fit digits with little of it takes seconds",
    "bridge.evaluation.check_plan.SMALL": "a narrow encoder: the real ones take seconds for each run's spectra",
    "claims.run.CLAIMS": "claims that fail, err and are interrupted; none of the real ones does",
}
MACHINE = {
    "simulation.footprint.MEMINFO": "what Linux says of a machine's memory",
    "simulation.footprint.LIMITS": "what Linux says of a container's memory",
}
SET = {**SIZES, **TIMES, **PARTS, **MACHINE}


def set_constant(patch: pytest.MonkeyPatch, name: str, value: object) -> None:
    """Give a constant of SET another value until the patch is undone."""
    assert name in SET, f"{name}: add it to helpers.constants, with the reason"
    patch.setattr(f"dyncollapse.{name}", value)


def probe_few_strengths(patch: pytest.MonkeyPatch) -> None:
    """Let logistic probes choose among three strengths of decay, where the choice is not what is tested."""
    set_constant(patch, "bridge.evaluation.probe.STRENGTHS", (0.01, 0.1, 1.0))
    set_constant(patch, "bridge.evaluation.probe.WEAKER", ())
