"""The points of a sweep on disk, and the work of one worker: a point's folder appears when the point is finished."""

import platform
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from dyncollapse.dynamics.solver import FlowFailed
from dyncollapse.dynamics.training import Diverged
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.runtime.files import printable, read_json
from dyncollapse.runtime.out_of_memory import out_of_memory_raised
from dyncollapse.runtime.process import check_count, core_share, recycle_freed_memory, use_threads
from dyncollapse.runtime.records import from_values
from dyncollapse.runtime.schemas import checked
from dyncollapse.runtime.settings import SettingError, option, quoted
from dyncollapse.simulation.build import Simulation, build
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.report import RECORD, save
from dyncollapse.simulation.run import run
from dyncollapse.sweeps.grid import ADDED_LATER, check_same, point_hash
from dyncollapse.sweeps.matrices import files_of
from dyncollapse.sweeps.packing import train_together
from dyncollapse.sweeps.schemas import Report


class Point(NamedTuple):
    """A point of a sweep.

    Attributes:
        name: The name of its folder.
        configuration: Its settings.
    """

    name: str
    configuration: Configuration

    @classmethod
    def of(cls, configuration: Configuration) -> Self:
        """Make the point of a configuration, named by a hash of the settings that its results depend on.

        Args:
            configuration: The settings.

        Returns:
            The point.
        """
        return cls(point_hash(configuration), configuration)


class PointResult(NamedTuple):
    """What a worker reports about a point.

    Attributes:
        name: The point.
        failure: Why it failed, in one line; None where its folder is there.
    """

    name: str
    failure: str | None


def threads_of_each(workers: int | None) -> int:
    """Most threads with which workers do not compete for this machine's cores; 1 where their number is not known."""
    return core_share(workers) if workers else 1


def run_pack(points: Sequence[Point], folder: Path, workers: int | None = None) -> list[PointResult]:
    """Run the points of a pack that are not finished, their SGD as one ensemble, and save each when it is finished.

    Nothing is raised: a point that fails reports why, and the others go on.

    Args:
        points: The pack; all have the same `threads`.
        folder: Holds the folders of finished points.
        workers: Processes on this machine, this one included, that share its cores; None where that is not known.

    Returns:
        A result for each point.
    """
    given = points[0].configuration.threads
    try:
        check_count("threads", given or 1)
    except SettingError as error:
        return [PointResult(point.name, error.as_options()) for point in points]
    threads = given or threads_of_each(workers)
    use_threads(given or 1)  # allowed: this process belongs to the sweep
    recycle_freed_memory()
    waiting = [point for point in points if not (folder / point.name).exists()]
    failures: dict[str, str | None] = {p.name: text for p in waiting if (text := _changed_files(p)) is not None}
    ready = [point for point in waiting if point.name not in failures]
    trained = _train(ready, threads)
    failures |= {point.name: _run_point(point, trained.get(point.name), folder, threads) for point in ready}
    return [PointResult(point.name, failures.get(point.name)) for point in points]


def _changed_files(point: Point) -> str | None:
    """Why a point's files are not those of which its results would bear the name, in one line; None if they are."""
    files = files_of(point.configuration)
    try:
        if not files or point_hash(point.configuration) == point.name:
            return None
    except SettingError as error:
        return error.as_options()
    named = " and ".join(f"{option(name)} {quoted(path)}" for name, path in files.items())
    return f"{named} changed since this point was planned; bring back what it held, or sweep again with what it holds"


def _train(points: Sequence[Point], threads: int) -> dict[str, tuple[Simulation, Trajectory]]:
    """Simulation and SGD record of each point by name; empty where the points cannot be trained together."""
    if len(points) < 2:
        return {}
    try:
        simulations = [build(point.configuration) for point in points]
        trained = zip(simulations, train_together(simulations, threads), strict=True)
        return {point.name: pair for point, pair in zip(points, trained, strict=True)}
    except Exception:  # they then run one by one: the point that caused this reports it, and the others succeed
        return {}


def _run_point(point: Point, trained: tuple[Simulation, Trajectory] | None, folder: Path, threads: int) -> str | None:
    """Finish and save one point; return why that failed, in one line, or None."""
    try:
        with out_of_memory_raised():
            # A flow is integrated for its point alone: each of its runs has steps of its own.
            simulation, path = trained or (build(point.configuration), None)
            known = {} if path is None else {"sgd": path}
            outcome = run(simulation, lambda *_: None, lambda _: None, known, threads)
            save_point(point.name, outcome, folder)
    except FileNotFoundError:
        return (
            f"{folder} does not exist on {platform.node()}; the folder of a sweep must be on a file system "
            "that all workers share"
        )
    except OSError as error:
        return f"{Path(error.filename or folder).name} could not be written ({error.strerror or error})"
    except SettingError as error:
        return error.as_options()
    except (Diverged, FlowFailed, ValueError) as error:
        return str(error)
    except MemoryError:
        return "does not fit into memory; lower --dim, --batch-size, --pool or --runs"
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def save_point(name: str, outcome: Outcome, folder: Path) -> None:
    """Write a point into a temporary folder and rename that, so that no reader finds an unfinished point.

    Args:
        name: The point.
        outcome: What it recorded.
        folder: Holds the folders of finished points.

    Raises:
        OSError: Where it cannot be written.
    """
    partial = folder / f".{name}.{uuid.uuid4().hex}.partial"
    partial.mkdir()
    try:
        save(outcome, partial)
        try:
            partial.rename(folder / name)
        except OSError:
            if not (folder / name / RECORD).exists():  # otherwise another worker has saved the same result
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_point(path: Path, planned: Configuration) -> Report:
    """Read the report of a finished point.

    Args:
        path: The point's folder.
        planned: The point's settings. Files that they name need not be there any more.

    Returns:
        The content of run.json.

    Raises:
        ValueError: Where it is missing, broken, unfinished or that of another point.
    """
    try:
        found = checked(read_json(path / RECORD), Report)
        configuration = as_configuration(found["config"])
        check_same(configuration, planned)
        if list(found["dynamics"]) != list(configuration.dynamics):
            raise ValueError("its dynamics are not those of its settings")
    except OSError as error:
        raise ValueError(f"{_shown(path)} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"{_shown(path)} is not the report of a finished point ({error})") from None
    return found


def _shown(path: Path) -> str:
    return printable(str(path / RECORD))


def as_configuration(values: Mapping[str, Any]) -> Configuration:
    """Make a configuration from the output of `Configuration.as_dict` that was read from JSON.

    Args:
        values: Settings by name; "versions" may stand among them, and settings that were added later may be missing.

    Returns:
        The configuration.

    Raises:
        ValueError: For anything else.
    """
    known = ADDED_LATER | {name: value for name, value in values.items() if name != "versions"}
    return from_values(Configuration, known)
