"""Points of a sweep on disk, and the work of one worker: a folder per point, there when finished and not before."""

import platform
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch

from dyncollapse.dynamics.solver import FlowFailed
from dyncollapse.dynamics.training import Diverged
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.runtime.files import printable, read_json
from dyncollapse.runtime.out_of_memory import out_of_memory_raised
from dyncollapse.runtime.process import check_count, recycle_freed_memory
from dyncollapse.runtime.records import from_values
from dyncollapse.runtime.schemas import checked
from dyncollapse.simulation.build import Simulation, build
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.report import save
from dyncollapse.simulation.run import run
from dyncollapse.sweeps.grid import point_hash
from dyncollapse.sweeps.packing import train_together
from dyncollapse.sweeps.schemas import Report


class Point(NamedTuple):
    """A configuration, and the name by which its results are found on disk."""

    name: str
    configuration: Configuration

    @classmethod
    def of(cls, configuration: Configuration) -> Self:
        """The point of a configuration; its name is the hash of the settings that its results depend on."""
        return cls(point_hash(configuration), configuration)


class PointResult(NamedTuple):
    """What a worker reports of a point: `failure` is one line, or None when its folder is there."""

    name: str
    failure: str | None


def run_pack(points: Sequence[Point], folder: Path) -> list[PointResult]:
    """Run the points that `folder` does not hold yet, their SGD as one ensemble, and save each when it is finished.

    What goes wrong with a point is its own failure and spares the others; nothing is raised.
    """
    threads = points[0].configuration.threads
    try:
        check_count("threads", threads)
    except ValueError as error:
        return [PointResult(point.name, str(error)) for point in points]
    torch.set_num_threads(threads)  # the process is the sweep's own
    recycle_freed_memory()
    waiting = [point for point in points if not (folder / point.name).exists()]
    trained = _train(waiting)
    failures = {point.name: _run_point(point, trained.get(point.name), folder) for point in waiting}
    return [PointResult(point.name, failures.get(point.name)) for point in points]


def _train(points: Sequence[Point]) -> dict[str, tuple[Simulation, Trajectory]]:
    """Simulation and SGD of each point by name, or nothing where they cannot be trained together."""
    if len(points) < 2:
        return {}
    try:
        simulations = [build(point.configuration) for point in points]
        trained = zip(simulations, train_together(simulations), strict=True)
        return {point.name: pair for point, pair in zip(points, trained, strict=True)}
    except Exception:  # one by one, the point that is to blame will say so, and the others will not notice
        return {}


def _run_point(point: Point, trained: tuple[Simulation, Trajectory] | None, folder: Path) -> str | None:
    """Finish and save one point; return what prevented that, in one line, or None."""
    try:
        with out_of_memory_raised():
            # A flow is integrated for its point alone: neighbours in one system of equations would share its steps.
            simulation, path = trained or (build(point.configuration), None)
            known = {} if path is None else {"sgd": path}
            save_point(point.name, run(simulation, lambda *_: None, lambda _: None, known), folder)
    except FileNotFoundError:
        return (
            f"{folder} is not there on {platform.node()}; the folder of a sweep must be on a file system "
            "that all workers share"
        )
    except OSError as error:
        return f"{Path(error.filename or folder).name} could not be written ({error.strerror or error})"
    except (Diverged, FlowFailed, ValueError) as error:
        return str(error)
    except MemoryError:
        return "does not fit into memory; lower --dim, --batch-size, --pool or --runs"
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def save_point(name: str, outcome: Outcome, folder: Path) -> None:
    """Write a point under a temporary name and rename the folder: whoever finds it finds all of it."""
    partial = folder / f".{name}.{uuid.uuid4().hex}.partial"
    partial.mkdir()
    try:
        save(outcome, partial)
        try:
            partial.rename(folder / name)
        except OSError:
            if not (folder / name / "run.json").exists():  # else another worker was first, with the same result
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_point(path: Path) -> Report:
    """Read the report of a finished point.

    Args:
        path: The point's folder.

    Returns:
        What run.json says.

    Raises:
        ValueError: One line where it is missing, broken or unfinished, or of another point.
    """
    try:
        found = checked(read_json(path / "run.json"), Report)
        configuration = as_configuration(found["config"])
        if (name := point_hash(configuration)) != path.name:
            raise ValueError(f"it holds the point {name}")
        if list(found["dynamics"]) != list(configuration.dynamics):
            raise ValueError("its dynamics are others than it was asked for")
    except OSError as error:
        raise ValueError(f"{_shown(path)} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"{_shown(path)} is not the report of a finished point ({error})") from None
    return found


def _shown(path: Path) -> str:
    return printable(str(path / "run.json"))


def as_configuration(values: Mapping[str, Any]) -> Configuration:
    """The configuration that `Configuration.as_dict` gave, read from JSON; versions are left out.

    Raises ValueError, one line, for anything else.
    """
    return from_values(Configuration, {name: value for name, value in values.items() if name != "versions"})
