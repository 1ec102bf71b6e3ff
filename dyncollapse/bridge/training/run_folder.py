"""Read and extend a run's folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from dyncollapse.bridge.recipe import Recipe, recorded
from dyncollapse.bridge.spaces import SpaceName
from dyncollapse.bridge.training.schemas import (
    Diagnosis,
    Facts,
    LogLine,
    MeasureName,
    Probe,
    Probes,
    Settings,
)
from dyncollapse.bridge.training.training_log import LOG, read_log
from dyncollapse.runtime.files import printable, read_json, write_json
from dyncollapse.runtime.folders import check_folder
from dyncollapse.runtime.schemas import checked

CONFIG, PROBES, DIAGNOSIS = "config.json", "probes.json", "diagnosis.json"
WANTED = "give folders that bridge pretrain or check made"


@dataclass(frozen=True)
class Run:
    """The content of a run's folder, finished or not.

    Attributes:
        folder: The run's folder.
        recipe: Its settings.
        facts: Sizes of its data and spaces, and its steps in all.
        probes: Results of linear probes, oldest first.
        diagnosis: The last diagnosis of both spaces; None if there is none.
        log: Lines of log.jsonl.

    Examples:
        >>> from dyncollapse.bridge import resolve
        >>> facts = {"data": "digits", "images": 1297, "representation_dim": 128, "embedding_dim": 64, "steps": 600}
        >>> probe = {"method": "logistic", "dimensions": 128, "top1": 94.0, "error": 1.1, "step": 600}
        >>> run = Run(Path("mlp"), resolve({"data": "digits"}), facts, [probe], None, [{"step": 600, "loss": 4.1}])
        >>> run.finished, run.top1(), run.measure("representation", "rankme")
        (True, 94.0, None)
    """

    folder: Path
    recipe: Recipe
    facts: Facts
    probes: list[Probe]
    diagnosis: Diagnosis | None
    log: list[LogLine]

    @property
    def finished(self) -> bool:
        """Whether the run has taken its last step."""
        return bool(self.log) and self.log[-1]["step"] >= self.facts["steps"]

    def probe(self, dimensions: int | None = None) -> Probe | None:
        """The last probe of the run's last logged step.

        Args:
            dimensions: Dimensions that the probe used; None for the whole representation.

        Returns:
            The probe's values in probes.json; None if there is no such probe.
        """
        wanted = self.facts["representation_dim"] if dimensions is None else dimensions
        at = self.log[-1]["step"] if self.log else None
        matching = [probe for probe in self.probes if probe["dimensions"] == wanted and probe.get("step") == at]
        return matching[-1] if matching else None

    def top1(self, dimensions: int | None = None) -> float | None:
        """The accuracy of `probe(dimensions)`.

        Args:
            dimensions: Dimensions that the probe used; None for the whole representation.

        Returns:
            Top-1 in percent; None if there is no such probe.
        """
        probe = self.probe(dimensions)
        return None if probe is None else probe["top1"]

    def measure(self, space: SpaceName, name: MeasureName) -> float | None:
        """A rank measure from the last diagnosis.

        Args:
            space: "representation" or "embedding".
            name: "rankme", "effective_rank" or "participation_ratio".

        Returns:
            The measure; None if the space was not diagnosed.
        """
        if self.diagnosis is None or space not in self.diagnosis["spaces"]:
            return None
        return self.diagnosis["spaces"][space]["measures"][name]

    @property
    def ratios(self) -> list[float]:
        """The rho of the representation from the last diagnosis; empty if they were not measured."""
        space = self.diagnosis["spaces"].get("representation") if self.diagnosis else None
        return [rho for rho in (space.get("augmentation_ratio") or [] if space else []) if rho is not None]


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Args:
        folder: A folder that `bridge pretrain` or `bridge check` made.

    Returns:
        The run, finished or not.

    Raises:
        ValueError: If the folder is not a run's, or if one of its files has another form. One line.

    Examples:
        >>> import torch
        >>> from dyncollapse.bridge import Process, pretrain, resolve
        >>> recipe = resolve({"data": "digits", "projector": "none", "epochs": 1, "images": 64, "batch_size": 32})
        >>> _ = pretrain(recipe, Path("none"), Process(0, 1, torch.device("cpu")))
        >>> run = read_run(Path("none"))
        >>> run.recipe == recipe, run.log[-1]["step"], run.facts["embedding_dim"]
        (True, 2, 128)
    """
    shown = printable(str(folder))
    check_folder(folder, WANTED)
    if not (folder / CONFIG).exists():
        raise ValueError(f"{shown} is no run: it has no {CONFIG}; {WANTED}")
    name = CONFIG
    try:
        config = checked(read_json(folder / CONFIG), Settings)
        recipe = recorded(config["recipe"])
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
    """Append a probe's result to a run's probes.json.

    Args:
        folder: The run's folder.
        probe: Plain JSON values from `Probed.as_dict`, and the `step` of the checkpoint.

    Raises:
        ValueError: If the run's probes.json has another form. One line.
        CannotWrite: If it cannot be written.

    Examples:
        >>> probe = {"method": "logistic", "dimensions": 128, "top1": 94.0, "error": 1.1, "step": 600}
        >>> add_probe(Path("."), probe)
        >>> read_json(Path("probes.json"))[0]["top1"]
        94.0
    """
    path = folder / PROBES
    with FileLock(folder / ".probes.lock"):  # without it, one of two probes that end at once would be lost
        try:
            earlier = read_json(path) if path.exists() else []
            checked(earlier, Probes)
        except ValueError as error:
            raise ValueError(f"{printable(str(path))} cannot be read ({error}); mend it or move it away") from None
        write_json(path, [*earlier, dict(probe)])


def find_runs(folders: Sequence[Path], tell: Callable[[str], object] | None = None) -> list[Run]:
    """Read the runs in folders.

    Args:
        folders: Folders of runs, or folders that hold such; a run that several of them name or hold counts once.
        tell: Called with one line on each run that cannot be read; None to raise instead.

    Returns:
        The runs, in order.

    Raises:
        ValueError: If a folder holds no run, or if no run can be read. One line.

    Examples:
        >>> import torch
        >>> from dyncollapse.bridge import Process, pretrain, resolve
        >>> for head in ("linear", "none"):
        ...     recipe = resolve({"data": "digits", "projector": head, "epochs": 1, "images": 64, "batch_size": 32})
        ...     _ = pretrain(recipe, Path("runs") / head, Process(0, 1, torch.device("cpu")))
        >>> [(run.recipe.head, run.finished) for run in find_runs([Path("runs")])]
        [('linear', True), ('none', True)]
    """
    runs, broken, seen = list[Run](), list[str](), set[Path]()
    for folder in folders:
        check_folder(folder, WANTED)
        inside = [folder] if (folder / CONFIG).exists() else sorted(p.parent for p in folder.glob(f"*/{CONFIG}"))
        for path in inside or [folder]:
            if (place := path.resolve()) in seen:
                continue
            seen.add(place)
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
