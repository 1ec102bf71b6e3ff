"""Diagnose embeddings in a folder of shards: each shard is summed where there is a worker, and the sums are merged."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from multiprocessing import parent_process
from pathlib import Path

import torch

from dyncollapse.diagnostics.finite import ADVICE, nonfinite
from dyncollapse.diagnostics.monitor import Monitor
from dyncollapse.diagnostics.options import DiagnosisOptions
from dyncollapse.diagnostics.readers import read_rows
from dyncollapse.diagnostics.report import EmbeddingReport, examine
from dyncollapse.diagnostics.shard_files import Shard, find_shards
from dyncollapse.formats.mapped import unchanged
from dyncollapse.runtime.dispatch import Workers, dispatch
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.process import default_threads, use_threads
from dyncollapse.runtime.settings import SettingError

# Parts that are summed apart. They do not depend on the workers, so that the result does not. Each returns its sums,
# 32 MB for one view of 2048 dimensions, so there are not many more than a machine has cores.
PARTS = 64
SKIPPED = 2**20  # random numbers that are drawn at once to be left out


def diagnose_shards(
    folder: str | Path,
    positives: str | Path | Sequence[str | Path] = (),
    *,
    key: str | None = None,
    workers: Workers | None = None,
    views: str = "two-sided",
    space: str = "embedding",
    fast: bool = False,
    sample: int = 4096,
    seed: int = 0,
    input_dim: int | None = None,
    progress: Callable[[str, float, float], None] | None = None,
) -> EmbeddingReport:
    """Report which dimensions of embeddings collapsed that are too large for one file, or for one machine.

    The report is that of `diagnose` on the joined rows, up to rounding: shards are taken in the order of their names
    with numbers compared as numbers, and random choices (the halves for cross-validation and the sample for intervals)
    depend on `seed` and a row's number alone, not on the workers. Memory is that of a `Monitor` for each worker, and
    one shard where it cannot be mapped.

    Args:
        folder: A folder with files of one format, each with the rows of some samples; `find_shards` has the rules.
        positives: A folder with another view of the same samples, or several: files of the same names.
        key: As for `read_rows`, the same for all files.
        workers: Where shards are read, as `local_workers`, `dask_workers` or `slurm_workers` make them; by default in
            this process. All of them must see the folders at the same paths.
        views: As for `diagnose`.
        space: As for `diagnose`.
        fast: As for `diagnose`.
        sample: As for `diagnose`.
        seed: As for `diagnose`.
        input_dim: As for `diagnose`.
        progress: Called with "embeddings", the rows done and the number of rows.

    Returns:
        The report. A note names files that were left out because they are of no format that is read.

    Raises:
        ValueError: One line that names the shard, for files that cannot be read, do not fit together or hold NaN or
            infinity; otherwise as for `diagnose`.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> z = np.random.default_rng(0).normal(size=(1000, 4)) * [1, 1, 1, 1e-3]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for number, part in enumerate(np.split(z, 4)):
        ...         np.save(f"{folder}/part-{number}.npy", part)
        ...     report = diagnose_shards(folder)
        >>> report.samples, report.collapsed
        (1000, 1)
    """
    options = DiagnosisOptions(
        views=views,  # type: ignore[arg-type]
        space=space,
        fast=fast,
        sample=sample,
        seed=seed,
        input_dim=input_dim,
    )
    given = [positives] if isinstance(positives, str | Path) else positives
    shards, left_out = find_shards(Path(folder), [Path(one) for one in given], key)
    total = shards[-1].start + shards[-1].rows
    options = replace(options, sample=min(sample, max(2, total)))
    parts = _parts(shards, total)
    merged: Monitor | None = None
    work = partial(sum_part, options=options, threads=_threads(workers))
    for monitor in _in_order(parts, work, workers, total, progress):
        if merged is None:
            merged = monitor
        else:
            merged.merge(monitor)
    assert merged is not None
    report = examine(replace(merged.evidence(), input_dim=input_dim))
    return replace(report, notes=(*report.notes, *_left_out(left_out)))


def _parts(shards: Sequence[Shard], total: int) -> list[list[Shard]]:
    """Return at most PARTS runs of shards that follow each other, with about equally many rows."""
    bounds = [0]
    for number, shard in enumerate(shards[:-1], 1):
        if (shard.start + shard.rows) * PARTS >= len(bounds) * total:
            bounds.append(number)
    return [list(shards[begin:end]) for begin, end in pairwise([*bounds, len(shards)])]


def _in_order(
    parts: Sequence[list[Shard]],
    work: Callable[[list[Shard]], Monitor | str],
    workers: Workers | None,
    total: int,
    progress: Callable[[str, float, float], None] | None,
) -> Iterator[Monitor]:
    """Yield the sums of each part, in the order of the parts; ValueError for the first that failed."""
    if workers is None:
        outcomes: Iterator[tuple[list[Shard], Monitor | str | Exception]] = ((part, work(part)) for part in parts)
    else:
        # Workers of a cluster may run in another folder.
        absolute = [[replace(one, paths=tuple(path.resolve() for path in one.paths)) for one in part] for part in parts]
        outcomes = iter(dispatch(work, absolute, workers))
    ready: dict[int, tuple[list[Shard], Monitor]] = {}  # by the number of samples before
    done = merged = 0
    for part, outcome in outcomes:
        if isinstance(outcome, str):
            raise SettingError(outcome)
        if isinstance(outcome, Exception):
            shown = " to ".join(dict.fromkeys(unmarked(str(part[at].paths[0])) for at in (0, -1)))
            raise ValueError(
                f"{shown} could not be summed: the worker died twice, out of memory or killed "
                f"({type(outcome).__name__}); give fewer workers, or smaller shards"
            )
        done += _rows(part)
        if progress:
            progress("embeddings", done, total)
        ready[part[0].start] = part, outcome
        while merged in ready:
            part, monitor = ready.pop(merged)
            yield monitor
            merged += _rows(part)


def _rows(part: Sequence[Shard]) -> int:
    return sum(shard.rows for shard in part)


def _threads(workers: Workers | None) -> int:
    """Threads of each worker: its share of this machine, and one where the machine is another."""
    return 1 if workers is None or workers.count is None else default_threads(workers.count)


def sum_part(part: list[Shard], options: DiagnosisOptions, threads: int) -> Monitor | str:
    """Sum the shards of a part; a text says why one of them cannot be."""
    if parent_process() is not None:  # a worker of its own, not a thread of the user's program
        use_threads(threads)
    monitor = Monitor(
        views=options.views, space=options.space, fast=options.fast, sample=options.sample, seed=options.seed
    )
    for shard in part:
        names = tuple(unmarked(str(path)) for path in shard.paths)
        try:
            with unchanged(shard.paths):
                views = [read_rows(path, shard.key) for path in shard.paths]
                if len(views[0]) != shard.rows:
                    return f"{names[0]} was changed while it was read; give a copy that nothing writes to"
                if monitor.sums is None:
                    monitor.update(*(view[:0] for view in views))
                    _skip(monitor, shard.start)
                _add(monitor, views, names)
        except SettingError as error:
            return error.text
        except ValueError as error:
            return str(error) if str(error).startswith(names) else f"{names[0]}: {error}"
        except MemoryError:
            return f"{names[0]} does not fit into memory; save smaller shards"
    return monitor


def _add(monitor: Monitor, views: Sequence[torch.Tensor], names: Sequence[str]) -> None:
    """Add the rows of a shard; the error for NaN and infinity counts them and names their file."""
    try:
        monitor.update(*views)
    except ValueError:
        for name, view in zip(names, views, strict=True):
            count, first = nonfinite(view)
            if first is not None:
                raise ValueError(
                    f"{name} holds {count} NaN or infinite number(s), the first in row {first[0]}, column {first[1]} "
                    f"{ADVICE}"
                ) from None
        raise


def _skip(monitor: Monitor, rows: int) -> None:
    """Leave out the random numbers that the samples before belong to, so that each sample has its own."""
    while rows:
        drawn = min(rows, SKIPPED)
        torch.rand(drawn, generator=monitor.coin, dtype=torch.float64)
        rows -= drawn
    for reservoir in monitor.reservoirs:  # they have the seed of the coin, as in one process
        reservoir.generator.set_state(monitor.coin.get_state())


def _left_out(names: Sequence[str]) -> list[str]:
    shown = ", ".join(map(unmarked, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return [f"files of other formats were left out: {shown}"] if names else []
