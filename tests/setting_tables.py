"""The documents' tables of settings, made from the same fields as the command line's options."""

from collections.abc import Iterator
from pathlib import Path

from dyncollapse.bridge.evaluation.embed_options import EmbedOptions
from dyncollapse.bridge.evaluation.options import EncoderOptions
from dyncollapse.bridge.evaluation.probe_options import ProbeOptions
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.diagnostics.options import DiagnosisOptions
from dyncollapse.explore.options import ExploreOptions
from dyncollapse.runtime.records import Setting, settings_of
from dyncollapse.runtime.settings import option, renamed
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.picture_options import PictureOptions
from dyncollapse.sweeps.options import WorkerOptions
from dyncollapse.sweeps.picture_options import SweepPictureOptions

RECORDS = {
    "simulate": Configuration,
    "pictures": PictureOptions,
    "explore": ExploreOptions,
    "spectra": SweepPictureOptions,
    "workers": WorkerOptions,
    "pretrain": Recipe,
    "diagnose": DiagnosisOptions,
    "encoder": EncoderOptions,
    "embed": EmbedOptions,
    "probe": ProbeOptions,
}
PREFIX = "settings_"


def setting_table(name: str) -> str:
    """The lines of the table settings_RECORD, or of settings_RECORD_GROUP with one group of settings only."""
    record, _, wanted = name.removeprefix(PREFIX).partition("_")
    groups: dict[str, list[Setting]] = {}
    for setting in settings_of(RECORDS[record]).values():
        if setting.text:
            groups.setdefault(setting.group, []).append(setting)
    chosen = {wanted: groups[wanted]} if wanted else groups
    lines = ["| option | values | default | meaning |", "|---|---|---|---|"]
    for group, settings in chosen.items():
        lines += [] if wanted else [f"| **{group}** | | | |"]
        lines += [f"| {' | '.join(_escaped(cell) for cell in _cells(setting))} |" for setting in settings]
    return "\n".join(lines) + "\n"


def _cells(setting: Setting) -> Iterator[str]:
    name = option(setting.name)
    yield f"`{name}`, `--no-{name[2:]}`" if setting.type is bool else f"`{name}`"
    yield _values(setting)
    yield renamed(setting.standard, _code)
    yield renamed(setting.text, _code)


def _values(setting: Setting) -> str:
    if setting.choices:
        return ", ".join(setting.choices)
    if setting.range:
        return f"{setting.range} {setting.unit}".rstrip()
    words = {bool: "yes or no", int: "a whole number", float: "a number", str: "text", tuple: "names", Path: "a path"}[
        setting.type
    ]
    return setting.must.removeprefix("write ") or words


def _code(name: str) -> str:
    return f"`{option(name)}`"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
