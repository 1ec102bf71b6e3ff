"""Runs as data: what the folder of one holds."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from dyncollapse.bridge.journal import read_journal
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.files import printable, write_json

CONFIG, PROBES, DIAGNOSIS = "config.json", "probes.json", "diagnosis.json"


@dataclass(frozen=True)
class Run:
    """One run: settings, sizes, probes and measures, as far as they are there."""

    folder: Path
    recipe: Recipe
    facts: dict[str, Any]
    probes: list[dict[str, Any]]
    diagnosis: dict[str, Any] | None
    log: list[dict[str, Any]]

    @property
    def finished(self) -> bool:
        """Whether it has taken its last step."""
        return bool(self.log) and self.log[-1]["step"] >= self.facts.get("steps", math.inf)

    def probe(self, dimensions: int | None = None) -> dict[str, Any] | None:
        """The last probe at the run's last step, of the whole representation or of its first `dimensions`."""
        wanted = self.facts["representation_dim"] if dimensions is None else dimensions
        at = self.log[-1]["step"] if self.log else None
        found = [probe for probe in self.probes if probe["dimensions"] == wanted and probe.get("step") == at]
        return found[-1] if found else None

    def top1(self, dimensions: int | None = None) -> float | None:
        """What that probe found, in percent."""
        found = self.probe(dimensions)
        return None if found is None else found["top1"]

    def measure(self, space: str, name: str) -> float | None:
        """A rank measure of the diagnosis."""
        spaces = self.diagnosis["spaces"] if self.diagnosis else {}
        return spaces[space]["measures"][name] if space in spaces else None


def read_run(folder: Path) -> Run:
    """A run's folder. Raises ValueError, one line, where it is none."""
    shown = printable(str(folder))
    try:
        config = json.loads((folder / CONFIG).read_text())
        recipe = Recipe(**config["recipe"])
        probes, diagnosis = (
            json.loads((folder / name).read_text()) if (folder / name).exists() else default
            for name, default in ((PROBES, []), (DIAGNOSIS, None))
        )
    except FileNotFoundError:
        raise ValueError(
            f"{shown} is no run: it has no {CONFIG}; give folders that bridge pretrain or check made"
        ) from None
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{shown} cannot be read as a run ({type(error).__name__}: {error})") from None
    return Run(folder, recipe, config["facts"], probes, diagnosis, read_journal(folder / "log.jsonl"))


def add_probe(folder: Path, probe: Mapping[str, Any]) -> None:
    """Put a probe's result, with the `step` of its checkpoint, beside the others of a run."""
    path = folder / PROBES
    with FileLock(folder / ".probes.lock"):  # or of two that end at once, one would be lost
        try:
            earlier = json.loads(path.read_text()) if path.exists() else []
        except json.JSONDecodeError:
            raise ValueError(f"{printable(str(path))} is no JSON; mend it or move it away") from None
        write_json(path, [*earlier, dict(probe)])


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs that folders are, or hold. Raises ValueError for a folder without any."""
    runs = []
    for folder in folders:
        inside = [folder] if (folder / CONFIG).exists() else sorted(p.parent for p in folder.glob(f"*/{CONFIG}"))
        runs += [read_run(path) for path in inside] or [read_run(folder)]
    return runs
