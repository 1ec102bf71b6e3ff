"""A grid of simulations in one folder: run over any Executor, resumed where it stopped, read as one table."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dyncollapse.runtime.dispatch import Workers, dispatch
from dyncollapse.runtime.executors import local_workers
from dyncollapse.runtime.files import is_partial, printable, read_json, remove_partial, write_json, writing
from dyncollapse.runtime.folders import HOLDER, LOCK, check_folder, held
from dyncollapse.runtime.schemas import checked
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.report import versions
from dyncollapse.sweeps.grid import axes_of
from dyncollapse.sweeps.packing import best_runs, packs
from dyncollapse.sweeps.points import Point, PointResult, as_configuration, read_point, run_pack
from dyncollapse.sweeps.schemas import Failures, Plan, Report
from dyncollapse.sweeps.tables import as_dataset, as_row, to_frame

if TYPE_CHECKING:
    import pandas
    import xarray

PLAN, POINTS, FAILURES = "sweep.json", "points", "failures.json"
# Packs per worker, so that a worker whose packs are short takes another's: a rule of thumb.
PACKS = 4
MOST_PLAN = 2**28  # bytes of sweep.json: the largest grid takes about half of it
# What a folder may hold that has lost its plan.
OWN_NAMES = {POINTS, FAILURES, LOCK, HOLDER, "slurm", "sweep.png"}


class Sweep:
    """Simulations whose results share a folder; `points` maps each one's name, a hash, to its configuration.

    The folder holds `points/NAME/` for each finished one, as `dyncollapse simulate --out` writes it, `sweep.json`
    with all that it was ever asked for, and `failures.json`. Nothing is written before `run`. Raises ValueError, one
    line, for no points at all and for settings that do not fit together.
    """

    def __init__(self, folder: str | Path, configurations: Sequence[Configuration]) -> None:
        """Take the points, as `expand_grid` gives them."""
        if not configurations:
            raise ValueError("a sweep needs at least one point")
        self.folder = Path(folder)
        self.points = dict(Point.of(c) for c in configurations)

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """All points that the sweep in this folder was ever asked for. Raises ValueError where there is none."""
        return cls(folder, _read_plan(Path(folder)))

    @property
    def axes(self) -> dict[str, list[Any]]:
        """The settings that vary, each with its values."""
        return axes_of(list(self.points.values()))

    def reports(self) -> tuple[dict[str, Report], dict[str, str]]:
        """What run.json says of each finished point, and of each folder that is broken what is wrong with it."""
        found, broken = {}, {}
        for name in self.points:
            if (path := self.folder / POINTS / name).exists():
                try:
                    found[name] = read_point(path)
                except ValueError as error:
                    broken[name] = str(error)
        return found, broken

    def failures(self) -> dict[str, str]:
        """What went wrong with the points that were tried last and are not finished."""
        try:
            told = checked(read_json(self.folder / FAILURES), Failures)
        except (OSError, ValueError):  # advice for the reader only: the next run finds out again
            return {}
        return {name: told[name] for name in self.points if name in told}

    def packs(
        self, done: Iterable[str] = (), *, workers: int | None = None, most_runs: int | None = None
    ) -> list[list[Configuration]]:
        """Ensembles of the points that are not `done`, of at most `most_runs` runs.

        By default as many as are fastest, or fewer where `workers` would else have less than PACKS each.
        """
        finished = set(done)
        waiting = [c for name, c in self.points.items() if name not in finished]
        if most_runs is None and waiting:
            most_runs = max(best_runs(c) for c in waiting)
            if workers is not None:
                most_runs = min(most_runs, sum(c.runs for c in waiting) // (PACKS * workers))
        return packs(waiting, most_runs or 1)

    def run(
        self,
        workers: Workers | None = None,
        *,
        most_runs: int | None = None,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
        tell: Callable[[str], None] = lambda _text: None,
    ) -> dict[str, str]:
        """Run the points that are not finished, by default on all local cores, and return what failed: name, reason.

        Points of another grid in the folder stay. `progress(done, total)` counts failures as done. Raises ValueError,
        one line, when another sweep holds the folder or it is none of a sweep; OSError when it cannot be written.
        """
        workers = workers or local_workers()
        self.check_folder()
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with held(self.folder):
            finished, known = self._prepare(tell)
            failures = {name: text for name, text in known.items() if name not in self.points}
            done, failed = len(finished), dict[str, str]()
            progress(done, len(self.points))
            name_of = {configuration: name for name, configuration in self.points.items()}
            waiting = [
                [Point(name_of[c], c) for c in pack]
                for pack in self.packs(finished, workers=workers.count, most_runs=most_runs)
            ]
            home = (self.folder / POINTS).resolve()
            for pack, outcome in dispatch(partial(run_pack, folder=home), waiting, workers):
                for result in _results(pack, outcome, home):
                    done += 1
                    if result.failure is not None:
                        failed[result.name] = result.failure
                        self._record(failures | failed)
                progress(done, len(self.points))
            self._record(failures | failed)
        return failed

    def check_folder(self) -> None:
        """Raise ValueError, one line, unless the folder is new, empty or a sweep's."""
        if self.folder.exists():
            check_folder(self.folder, "name a new folder or a sweep's")
        if self.folder.exists() and not (self.folder / PLAN).exists():
            foreign = sorted(p.name for p in self.folder.iterdir() if p.name not in OWN_NAMES and not is_partial(p))
            if foreign:
                raise ValueError(f"{self.folder} holds {foreign[0]} and no {PLAN}; name a new folder or a sweep's")

    def table(self, reports: Mapping[str, Report] | None = None) -> list[dict[str, Any]]:
        """One row per finished point, its settings and what was found; of `reports` where they have been read."""
        reports = self.reports()[0] if reports is None else reports
        return [as_row(name, self.points[name], report) for name, report in reports.items()]

    def to_pandas(self) -> "pandas.DataFrame":
        """The table as a data frame, NaN where a point has no such result; needs pandas."""
        return to_frame(self.table())

    def to_xarray(self) -> "xarray.Dataset":
        """Results over the axes of the grid, NaN where a point is not finished; needs xarray.

        Raises ValueError where the points are no full grid.
        """
        return as_dataset(self.points, self.axes, self.table())

    def _prepare(self, tell: Callable[[str], None]) -> tuple[list[str], dict[str, str]]:
        """Write the plan and remove what killed workers and broken disks left; what is finished, and known failures."""
        known = _read_plan(self.folder) if (self.folder / PLAN).exists() else []
        everything = Sweep(self.folder, [*known, *self.points.values()])
        write_json(self.folder / PLAN, everything._as_plan())
        (self.folder / POINTS).mkdir(exist_ok=True)
        remove_partial(self.folder)
        remove_partial(self.folder / POINTS)
        found, broken = self.reports()
        for name, problem in broken.items():
            tell(f"{problem}; it is run again")
            path = self.folder / POINTS / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        return list(found), everything.failures()

    def _record(self, failures: dict[str, str]) -> None:
        with suppress(OSError):  # a full disk, as a rule: what failed is returned all the same
            write_json(self.folder / FAILURES, failures)

    def _as_plan(self) -> dict[str, Any]:
        points = [{"point": name, "config": c.as_dict()} for name, c in self.points.items()]
        return {"axes": self.axes, "points": points, "versions": versions()}


def _results(pack: Sequence[Point], outcome: Any, home: Path) -> Iterator[PointResult]:
    """What became of a pack's points, also of one whose worker died and of those that were saved elsewhere."""
    if isinstance(outcome, Exception):
        reason = f"its worker died twice: out of memory or killed ({type(outcome).__name__})"
        yield from (PointResult(point.name, reason) for point in pack)
        return
    for result in outcome:
        if result.failure is None and not (home / result.name / "run.json").exists():
            reason = f"its worker finished it, but not in {home}; the folder must be on a file system that all share"
            result = result._replace(failure=reason)
        yield result


def _read_plan(folder: Path) -> list[Configuration]:
    path = folder / PLAN
    shown = printable(str(path))
    check_folder(folder, "name the folder of a sweep")
    try:
        plan = checked(read_json(path, MOST_PLAN), Plan)
        return [as_configuration(point["config"]) for point in plan["points"]]
    except FileNotFoundError:
        raise ValueError(f"{printable(str(folder))} holds no {PLAN}; name the folder of a sweep") from None
    except OSError as error:
        raise ValueError(f"{shown} cannot be read ({error.strerror}); name the folder of a sweep") from None
    except ValueError as error:
        raise ValueError(
            f"{shown} cannot be read ({error}); remove it and sweep again: finished points are kept"
        ) from None
