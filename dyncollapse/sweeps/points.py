"""Points of a sweep on disk, and the work of one worker: a folder per point, there when finished and not before."""

import platform
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dyncollapse.dynamics.solver import FlowFailed
from dyncollapse.dynamics.training import Diverged
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.runtime.files import printable, read_json
from dyncollapse.runtime.schemas import checked
from dyncollapse.runtime.settings import from_values
from dyncollapse.runtime.threads import check_count
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.report import save
from dyncollapse.simulation.run import Outcome, Simulation, build, run
from dyncollapse.sweeps.grid import point_hash
from dyncollapse.sweeps.packing import train_together
from dyncollapse.sweeps.schemas import Report


class PointResult(NamedTuple):
    """What a worker says of a point: `failure` is one line, or None when its folder is there."""

    name: str
    failure: str | None


def run_pack(configurations: Sequence[Configuration], folder: Path) -> list[PointResult]:
    """Run the points that `folder` does not hold yet, their SGD as one ensemble, and save each when it is finished.

    What goes wrong with a point is its own failure and spares the others; nothing is raised.
    """
    threads = configurations[0].threads
    try:
        check_count("threads", threads)
    except ValueError as error:
        return [PointResult(point_hash(c), str(error)) for c in configurations]
    torch.set_num_threads(threads)
    waiting = [c for c in configurations if not (folder / point_hash(c)).exists()]
    trained = _train(waiting)
    failures = {c: _run_point(c, trained.get(c), folder) for c in waiting}
    return [PointResult(point_hash(c), failures.get(c)) for c in configurations]


def _train(configurations: Sequence[Configuration]) -> dict[Configuration, tuple[Simulation, Trajectory]]:
    if len(configurations) < 2:
        return {}
    try:
        simulations = [build(c) for c in configurations]
        return dict(zip(configurations, zip(simulations, train_together(simulations), strict=True), strict=True))
    except Exception:  # one by one, the point that is to blame will say so, and the others will not notice
        return {}


def _run_point(configuration: Configuration, trained: tuple[Simulation, Trajectory] | None, folder: Path) -> str | None:
    """Finish and save one point; return what prevented that, in one line, or None."""
    try:
        # A flow is integrated for its point alone: neighbours in one system of equations would share its step sizes.
        simulation, path = trained or (build(configuration), None)
        known = {} if path is None else {"sgd": path}
        save_point(run(simulation, lambda *_: None, lambda _: None, known), folder)
    except FileNotFoundError:
        return (
            f"{folder} is not there on {platform.node()}; the folder of a sweep must be on a file system "
            "that all workers share"
        )
    except OSError as error:
        return f"{Path(error.filename or folder).name} could not be written ({error.strerror or error})"
    except (Diverged, FlowFailed, ValueError) as error:
        return str(error)
    except Exception as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            return "does not fit into memory; lower --dim, --batch-size, --pool or --runs"
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def save_point(outcome: Outcome, folder: Path) -> None:
    """Write a point under a name of its own and rename the folder: whoever finds it finds all of it."""
    name = point_hash(outcome.simulation.configuration)
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
