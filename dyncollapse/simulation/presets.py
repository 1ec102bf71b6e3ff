"""From given settings to a complete configuration: presets, and defaults that follow from other settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dyncollapse.model.choices import AUTHORS_TEMPERATURE, INVARIANCE, SELF_DISTILLED
from dyncollapse.runtime.records import check_value, settings_of
from dyncollapse.runtime.settings import SettingError, quoted
from dyncollapse.simulation.configuration import AUTHORS_RATE, SMALL_START, TARGET_MOMENTUM, Configuration


@dataclass(frozen=True)
class Preset:
    """A named set of settings: those in `pinned` cannot be changed, those in `suggested` are its defaults."""

    pinned: dict[str, Any]
    suggested: dict[str, Any]


PAPER = Preset({"loss": "infonce", "views": "one-sided", "data_var": 0.5}, {})
_AUTHORS = {"loss": "dot", "temperature": AUTHORS_TEMPERATURE, "views": "two-sided", "data_var": 1.0}
_AUTHORS_SIZES = {"batch_size": 128, "pool": 10_000, "steps": 10_000, "dim": 16}
AUTHORS_CASES = {
    1: Preset(
        {**_AUTHORS, "depth": 1, "bias": True, "init": "uniform"},
        {**_AUTHORS_SIZES, "lr": 1e-3, "init_scale": 1.0},
    ),
    2: Preset(
        {**_AUTHORS, "bias": False, "init": "spectrum"},
        {
            **_AUTHORS_SIZES,
            "lr": 1e-2,
            "depth": 2,
            "aug_strength": 1e-6,  # the authors' noise, a standard deviation of 1e-3
            "init_scale": 1.0,
            "init_rate": AUTHORS_RATE,
        },
    ),
}
# Settings that take the place of others.
REPLACED = {
    "widths": ("dim", "depth", "hidden_dim", "out_dim"),
    "data_cov": ("data_var",),
    "aug_cov": ("aug_strength", "aug_dim"),
}


def resolve(given: Mapping[str, Any]) -> Configuration:
    """Fill in the settings that were not given: from the preset, then from given settings, then from the defaults.

    Args:
        given: Settings by name.

    Returns:
        The complete configuration.

    Raises:
        SettingError: For an unknown setting, one out of range, and one that contradicts the preset or another.

    Examples:
        >>> resolve({"preset": "authors-code", "case": 2}).init
        'spectrum'
    """
    known = settings_of(Configuration)
    if unknown := given.keys() - known.keys():
        raise SettingError(f"there is no setting {quoted(min(unknown, key=str))}; the settings are {', '.join(known)}")
    given = {name: check_value(Configuration, name, value) for name, value in given.items()}
    preset, case = given.get("preset"), given.get("case")
    suggested: dict[str, Any] = {}
    if preset is not None:
        case = 1 if case is None and preset == "authors-code" else case
        chosen = PAPER if preset == "paper" else AUTHORS_CASES[case or 1]
        for name, value in chosen.pinned.items():
            if name in given and given[name] != value:
                raise SettingError(
                    f"`preset` {preset} means `{name}` {_shown(value)}, not {_shown(given[name])}; "
                    f"drop `preset` or `{name}`"
                )
        suggested = {**chosen.suggested, **chosen.pinned}
    settings = {**suggested, **given, "case": case}
    _replace_sizes(settings, given)
    if settings.get("loss") == "ntxent":
        settings.setdefault("views", "two-sided")  # the only views for which this loss is defined
    if settings.get("loss") in ("dot", "ntxent"):
        settings.setdefault("temperature", AUTHORS_TEMPERATURE)
    if settings.get("loss") in ("vcreg", "vicreg"):
        settings.setdefault("invariance", INVARIANCE)
    if settings.get("loss") in SELF_DISTILLED:
        settings.setdefault("views", "two-sided")  # one-sided augmentation would change nothing but noise
        settings.setdefault("predictor_rate", 1.0)
    if settings.get("loss") == "byol":
        settings.setdefault("target_momentum", TARGET_MOMENTUM)
    init = settings.get("init", "gaussian")
    # These losses are invariant to the scale of W, and their gradient grows as 1 / |W|: a small start would be stiff.
    small = init == "gaussian" and settings.get("loss") not in ("ntxent", "barlow-normalised")
    settings.setdefault("init_scale", SMALL_START if small else 1.0)
    if init == "spectrum":
        settings.setdefault("init_rate", AUTHORS_RATE)
    if "dim" in settings:
        everywhere = (preset, case) == ("authors-code", 2)
        settings.setdefault("aug_dim", settings["dim"] if everywhere else settings["dim"] // 2)
    return Configuration(**settings)


def _replace_sizes(settings: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Fill in the sizes that widths and files of covariances give."""
    for name, others in REPLACED.items():
        if given.get(name) is not None and (both := [other for other in others if given.get(other) is not None]):
            raise SettingError(f"`{name}` and `{both[0]}` are both given; drop one of them")
    if (widths := given.get("widths")) is not None:
        numbers = [int(width) for width in widths.split(",")]
        settings |= {"dim": numbers[0], "depth": len(numbers) - 1}
        return
    files = [name for name in ("data_cov", "aug_cov") if given.get(name) is not None]
    if not files or "dim" in given:
        return
    from dyncollapse.simulation.covariance_files import size_of

    sizes = {name: size_of(name, given[name]) for name in files}
    settings["dim"] = sizes[files[0]]
    if len(set(sizes.values())) > 1:
        data, aug = sizes["data_cov"], sizes["aug_cov"]
        raise SettingError(
            f"`data_cov` is a covariance ({data}, {data}) and `aug_cov` ({aug}, {aug}); give both for the same inputs"
        )


def _shown(value: Any) -> str:
    return ("off", "on")[value] if isinstance(value, bool) else quoted(value).strip("'")
