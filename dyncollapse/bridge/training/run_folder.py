"""Runs as data: what the folder of one holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from dyncollapse.bridge.recipe import Recipe
from dyncollapse.bridge.training.schemas import (
    Diagnosis,
    Facts,
    LogLine,
    MeasureName,
    Probe,
    Probes,
    Settings,
    SpaceName,
)
from dyncollapse.bridge.training.training_log import LOG, read_log
from dyncollapse.runtime.files import printable, read_json, write_json
from dyncollapse.runtime.folders import check_folder
from dyncollapse.runtime.records import from_values
from dyncollapse.runtime.schemas import checked

CONFIG, PROBES, DIAGNOSIS = "config.json", "probes.json", "diagnosis.json"
WANTED = "give folders that bridge pretrain or check made"


@dataclass(frozen=True)
class Run:
    """One run, as far as it has come.

    Attributes:
        folder: Where it is.
        recipe: Its settings.
        facts: Sizes of its data and spaces, and its steps.
        probes: Linear probes, oldest first.
        diagnosis: The last diagnosis of both spaces.
        log: Lines of its log.
    """

    folder: Path
    recipe: Recipe
    facts: Facts
    probes: list[Probe]
    diagnosis: Diagnosis | None
    log: list[LogLine]

    @property
    def finished(self) -> bool:
        """Whether it has taken its last step."""
        return bool(self.log) and self.log[-1]["step"] >= self.facts["steps"]

    def probe(self, dimensions: int | None = None) -> Probe | None:
        """The last probe at the run's last step, of the whole representation or of its first `dimensions`."""
        wanted = self.facts["representation_dim"] if dimensions is None else dimensions
        at = self.log[-1]["step"] if self.log else None
        matching = [probe for probe in self.probes if probe["dimensions"] == wanted and probe.get("step") == at]
        return matching[-1] if matching else None

    def top1(self, dimensions: int | None = None) -> float | None:
        """Accuracy of that probe, in percent."""
        probe = self.probe(dimensions)
        return None if probe is None else probe["top1"]

    def measure(self, space: SpaceName, name: MeasureName) -> float | None:
        """A rank measure of the diagnosis, where there is one of the space."""
        if self.diagnosis is None or space not in self.diagnosis["spaces"]:
            return None
        return self.diagnosis["spaces"][space]["measures"][name]


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Args:
        folder: What `bridge pretrain` or `bridge check` made.

    Returns:
        The run, as far as it has come.

    Raises:
        ValueError: One line where the folder is none of a run, or a file of it has another shape.
    """
    shown = printable(str(folder))
    check_folder(folder, WANTED)
    if not (folder / CONFIG).exists():
        raise ValueError(f"{shown} is no run: it has no {CONFIG}; {WANTED}")
    name = CONFIG
    try:
        config = checked(read_json(folder / CONFIG), Settings)
        recipe = from_values(Recipe, config["recipe"])
        name = PROBES
        probes = checked(read_json(folder / name), Probes) if (folder / name).exists() else []
        name = DIAGNOSIS
        diagnosis = checked(read_json(folder / name), Diagnosis) if (folder / name).exists() else None
        name = LOG
        log = read_log(folder / name)
    except OSError as error:
        raise ValueError(f"{shown} cannot be read as a run ({name}: {error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"{shown} cannot be read as a run ({name}: {error})") from None
    return Run(folder, recipe, config["facts"], probes, diagnosis, log)


def add_probe(folder: Path, probe: Mapping[str, object]) -> None:
    """Put a probe's result beside the others of a run.

    Args:
        folder: The run's.
        probe: Plain JSON values, as `Probed.as_dict` gives them, with the `step` of the checkpoint.

    Raises:
        ValueError: One line where the run's probes.json holds anything else.
        CannotWrite: Where it cannot be written.
    """
    path = folder / PROBES
    with FileLock(folder / ".probes.lock"):  # or of two that end at once, one would be lost
        try:
            earlier = read_json(path) if path.exists() else []
            checked(earlier, Probes)
        except ValueError as error:
            raise ValueError(f"{printable(str(path))} cannot be read ({error}); mend it or move it away") from None
        write_json(path, [*earlier, dict(probe)])


def find_runs(folders: Sequence[Path], tell: Callable[[str], object] | None = None) -> list[Run]:
    """Read the runs that folders are, or hold.

    Args:
        folders: Runs, or folders that hold some.
        tell: Called with one line for a run that cannot be read, where others can; without it that is an error.

    Returns:
        The runs, in order.

    Raises:
        ValueError: One line for a folder without any run, and for the first that cannot be read where none can.
    """
    runs, broken = list[Run](), list[str]()
    for folder in folders:
        check_folder(folder, WANTED)
        inside = [folder] if (folder / CONFIG).exists() else sorted(p.parent for p in folder.glob(f"*/{CONFIG}"))
        for path in inside or [folder]:
            try:
                runs.append(read_run(path))
            except ValueError as error:
                if tell is None or not inside:
                    raise
                broken.append(str(error))
    if broken and not runs:
        raise ValueError(broken[0] + (f", nor can {len(broken) - 1} others" if broken[1:] else ""))
    if tell is not None:
        for text in broken:
            tell(text)
    return runs
