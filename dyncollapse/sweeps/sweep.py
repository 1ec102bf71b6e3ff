"""A grid of simulations in one folder: run on any Executor, resumed where it stopped, read as one table."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

from dyncollapse.runtime.dispatch import Workers, dispatch
from dyncollapse.runtime.executors import local_workers
from dyncollapse.runtime.files import is_partial, printable, read_json, remove_partial, write_json, writing
from dyncollapse.runtime.folders import HOLDER, LOCK, check_folder, held
from dyncollapse.runtime.page.render import PAGE
from dyncollapse.runtime.schemas import checked
from dyncollapse.runtime.settings import quoted
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.picture_options import PictureFormat
from dyncollapse.simulation.report import RECORD, versions
from dyncollapse.sweeps.grid import axes_of
from dyncollapse.sweeps.matrices import check_files, files_of
from dyncollapse.sweeps.packing import best_runs, packs
from dyncollapse.sweeps.picture_options import SweepPlot
from dyncollapse.sweeps.points import Point, PointResult, as_configuration, read_point, run_pack
from dyncollapse.sweeps.schemas import Failures, Plan, PlannedPoint, Report
from dyncollapse.sweeps.tables import as_dataset, as_row, to_frame

if TYPE_CHECKING:
    import pandas
    import xarray

PLAN, POINTS, FAILURES = "sweep.json", "points", "failures.json"
# Packs per worker, so that a worker whose packs are quick can take more of them: a rule of thumb.
PACKS = 4
MOST_PLAN = 2**28  # bytes of sweep.json: the largest grid takes about half of it
# What the folder of a sweep may hold without sweep.json.
OWN_NAMES = {POINTS, FAILURES, LOCK, HOLDER, PAGE, "slurm"}
OWN_NAMES |= {f"{name}.{form}" for name in get_args(SweepPlot) for form in get_args(PictureFormat)}


class Sweep:
    """Simulations whose results share a folder, which `run` fills and resumes.

    Each finished point has a folder points/NAME/ as `dyncollapse simulate --out` writes it. sweep.json lists every
    point that was ever requested in the folder, and failures.json what failed last. Nothing is written before `run`.

    Attributes:
        folder: The folder.
        points: The configuration of each point by its name, a hash of its settings.

    Examples:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from dyncollapse import Sweep, Workers, expand_grid
        >>> grid = {"dim": 4, "runs": 1, "dynamics": ("population",), "aug_strength": [0.5, 1.5]}
        >>> sweep = Sweep("runs/threshold", expand_grid(grid))
        >>> sweep.run(Workers(lambda: ThreadPoolExecutor(1), count=1))  # no failures; a script leaves the workers out
        {}
        >>> [(row["aug_strength"], row["collapsed"], row["mechanism"]) for row in sweep.table()]
        [(0.5, 0, 'none'), (1.5, 2, 'strong-augmentation')]
    """

    def __init__(self, folder: str | Path, configurations: Sequence[Configuration]) -> None:
        """Name the points of a sweep.

        Args:
            folder: A new or empty folder, or that of an earlier sweep, whose finished points are then kept.
            configurations: The points, as `expand_grid` returns them.

        Raises:
            ValueError: Where there are no points, and where files that they name hold no covariances that fit them.
        """
        if not configurations:
            raise ValueError("a sweep needs at least one point")
        check_files(configurations)
        self.folder = Path(folder)
        self.points = dict(Point.of(c) for c in configurations)

    @classmethod
    def _of(cls, folder: Path, points: Mapping[str, Configuration]) -> Self:
        """The sweep of points that have names already: files that they name may have gone or changed since."""
        sweep = cls.__new__(cls)
        sweep.folder, sweep.points = folder, dict(points)
        return sweep

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open the sweep in a folder, with all points that were ever requested there.

        Args:
            folder: The folder.

        Returns:
            The sweep.

        Raises:
            ValueError: Where the folder holds no sweep, or its sweep.json is broken.
        """
        return cls._of(Path(folder), _read_plan(Path(folder)))

    @property
    def axes(self) -> dict[str, list[Any]]:
        """The settings that vary independently, each with its values."""
        return axes_of(list(self.points.values()))

    def reports(self) -> tuple[dict[str, Report], dict[str, str]]:
        """Read the reports of all finished points.

        Returns:
            The content of run.json for each finished point, and for each broken folder what is wrong with it; both by
            the point's name.
        """
        found, broken = {}, {}
        for name, planned in self.points.items():
            if (path := self.folder / POINTS / name).exists():
                try:
                    found[name] = read_point(path, planned)
                except ValueError as error:
                    broken[name] = str(error)
        return found, broken

    def failures(self) -> dict[str, str]:
        """Read why points failed when they were last tried.

        Returns:
            The reason in one line, by the point's name; empty where failures.json is missing or broken.
        """
        try:
            known = checked(read_json(self.folder / FAILURES), Failures)
        except (OSError, ValueError):  # only a hint: the next run tries these points again
            return {}
        return {name: known[name] for name in self.points if name in known}

    def packs(
        self, done: Iterable[str] = (), *, workers: int | None = None, most_runs: int | None = None
    ) -> list[list[Configuration]]:
        """Group the points into ensembles that train together, as `run` does.

        Args:
            done: Names of points to leave out.
            workers: Workers that share the packs; each then gets at least four where there are enough points.
            most_runs: Most runs in a pack; by default the number at which a run is cheapest.

        Returns:
            The packs. A point is never split.
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
        """Run the points that are not finished; other points in the folder stay.

        Each point is saved when it is finished. After an interruption, or a kill, call `run` again to go on.

        Args:
            workers: Where the points run; all cores of this machine by default. A script then puts its own work under
                `if __name__ == "__main__":`.
            most_runs: Most runs in an ensemble; by default the number at which a run is cheapest.
            progress: Called as progress(done, total); failed points count as done.
            tell: Called with one line for each broken folder, whose point runs again, and with one on files that
                changed since points of the same settings were planned.

        Returns:
            Why points failed, in one line each, by name; empty where all points are finished.

        Raises:
            ValueError: Where another process runs a sweep in the folder, or the folder holds other files.
            OSError: Where it cannot be written.
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
            together = self.packs(finished, workers=workers.count, most_runs=most_runs)
            waiting = self._named(together, finished)
            home = (self.folder / POINTS).resolve()
            work = partial(run_pack, folder=home, workers=workers.count and min(workers.count, len(waiting)))
            for pack, outcome in dispatch(work, waiting, workers):
                for result in _results(pack, outcome, home):
                    done += 1
                    if result.failure is not None:
                        failed[result.name] = result.failure
                        self._record(failures | failed)
                progress(done, len(self.points))
            self._record(failures | failed)
            remove_partial(self.folder / POINTS)  # workers of a killed run may have outlived it for a moment
        return failed

    def check_folder(self) -> None:
        """Refuse a folder that is neither new nor empty nor that of a sweep.

        Raises:
            ValueError: Where it holds other files, or is no folder.
        """
        if self.folder.exists():
            check_folder(self.folder, "name a new folder or that of a sweep")
        if self.folder.exists() and not (self.folder / PLAN).exists():
            foreign = sorted(p.name for p in self.folder.iterdir() if p.name not in OWN_NAMES and not is_partial(p))
            if foreign:
                raise ValueError(
                    f"{self.folder} holds {foreign[0]} and no {PLAN}; name a new folder or that of a sweep"
                )

    def table(self, reports: Mapping[str, Report] | None = None) -> list[dict[str, Any]]:
        """Put the results into rows, one per finished point.

        Args:
            reports: Reports that `reports` has read; by default they are read now.

        Returns:
            Each row maps columns to values: the point's name, its settings, status and verdict, distances between the
            dynamics, and for each dynamics its last loss, flow time, seconds and singular values of P (mean over
            runs), as "sgd_loss" and "sgd_sigma_1".
        """
        reports = self.reports()[0] if reports is None else reports
        return [as_row(name, self.points[name], report) for name, report in reports.items()]

    def to_pandas(self) -> "pandas.DataFrame":
        """Put the results into a pandas data frame, one row per finished point.

        Returns:
            The rows of `table`; NaN where a point lacks a result.

        Raises:
            SettingError: Where pandas is not installed.
        """
        return to_frame(self.table())

    def to_xarray(self) -> "xarray.Dataset":
        """Arrange the results over the axes of the grid.

        Returns:
            A data set with a dimension per axis, and "rank" for singular values; NaN where a point is not finished.
            Settings that all points share are its attributes.

        Raises:
            SettingError: Where xarray is not installed.
            ValueError: Where the points are not every combination of the values of the axes.
        """
        return as_dataset(self.points, self.axes, self.table())

    def _prepare(self, tell: Callable[[str], None]) -> tuple[list[str], dict[str, str]]:
        """Write the plan and remove unfinished and broken points; return finished points and earlier failures."""
        known = _read_plan(self.folder) if (self.folder / PLAN).exists() else {}
        everything = self._of(self.folder, known | self.points)  # of a point's files, the latest paths
        if text := self._changed(known):
            tell(text)
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

    def _changed(self, known: Mapping[str, Configuration]) -> str:
        """A line on files that changed under their names since earlier points of the folder; empty where none did."""
        earlier = set(known.values())
        changed = [c for name, c in self.points.items() if name not in known and c in earlier]
        if not changed:
            return ""
        paths = sorted({quoted(path) for c in changed for path in files_of(c).values()})
        named = f"{' or '.join(paths)} changed since {len(changed)} point{'s'[: len(changed) > 1]} of the same settings"
        return f"{named}; earlier results stay beside the new ones"

    def _named(self, together: Sequence[Sequence[Configuration]], finished: Iterable[str]) -> list[list[Point]]:
        """Packs of the points that are not finished, with their names; if a file changed, two may share settings."""
        names: dict[Configuration, list[str]] = {}
        for name in self.points.keys() - set(finished):
            names.setdefault(self.points[name], []).append(name)
        return [[Point(names[c].pop(), c) for c in pack] for pack in together]

    def _record(self, failures: dict[str, str]) -> None:
        with suppress(OSError):  # most likely a full disk; the failures are returned in any case
            write_json(self.folder / FAILURES, failures)

    def _as_plan(self) -> dict[str, Any]:
        points = [{"point": name, "config": c.as_dict()} for name, c in self.points.items()]
        return {"axes": self.axes, "points": points, "versions": versions()}


def _results(pack: Sequence[Point], outcome: Any, home: Path) -> Iterator[PointResult]:
    """The results of a pack's points, also where its worker died or saved them on another file system."""
    if isinstance(outcome, Exception):
        reason = f"its worker died twice: out of memory or killed ({type(outcome).__name__})"
        yield from (PointResult(point.name, reason) for point in pack)
        return
    for result in outcome:
        if result.failure is None and not (home / result.name / RECORD).exists():
            reason = f"its worker finished it, but not in {home}; the folder must be on a file system that all share"
            result = result._replace(failure=reason)
        yield result


def _read_plan(folder: Path) -> dict[str, Configuration]:
    """The points of sweep.json by name."""
    path = folder / PLAN
    shown = printable(str(path))
    check_folder(folder, "name the folder of a sweep")
    try:
        plan = checked(read_json(path, MOST_PLAN), Plan)
        if not plan["points"]:
            raise ValueError("it has no points")
        return dict(_as_point(point) for point in plan["points"])
    except FileNotFoundError:
        raise ValueError(f"{printable(str(folder))} holds no {PLAN}; name the folder of a sweep") from None
    except OSError as error:
        raise ValueError(f"{shown} cannot be read ({error.strerror}); name the folder of a sweep") from None
    except ValueError as error:
        raise ValueError(
            f"{shown} cannot be read ({error}); remove it and sweep again: finished points are kept"
        ) from None


def _as_point(planned: PlannedPoint) -> Point:
    """A point of sweep.json. Its recorded name counts where files do, which may have gone or changed since."""
    configuration = as_configuration(planned["config"])
    return Point(planned["point"], configuration) if files_of(configuration) else Point.of(configuration)
