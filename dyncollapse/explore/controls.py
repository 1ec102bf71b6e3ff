"""What the sliders of the page offer, and the configuration that their values make."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from dyncollapse.explore.running import flow_of
from dyncollapse.runtime.records import settings_of
from dyncollapse.simulation.command import as_options
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.presets import resolve

WIDEST, DEEPEST = 48, 4  # flows of larger networks take many seconds


@dataclass(frozen=True)
class Control:
    """A slider: its words and its values in order."""

    label: str
    values: tuple[float, ...]


def _even(first: int, last: int, parts: int) -> tuple[float, ...]:
    """Whole multiples of 1 / parts, from `first` to `last` of these."""
    return tuple(k / parts for k in range(first, last + 1))


CONTROLS: Mapping[str, Control] = MappingProxyType(
    {
        "aug_strength": Control("augmentation variance k", _even(0, 80, 20)),
        "data_var": Control("data variance s", _even(1, 20, 10)),
        "view_corr": Control("correlation of the two noises", _even(-10, 10, 10)),
        "depth": Control("layers L", tuple(range(1, DEEPEST + 1))),
        "dim": Control("inputs d", tuple(range(2, WIDEST + 1))),
        "weight_decay": Control(
            "weight decay w", (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
        ),
        "temperature": Control("temperature", (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)),
        "invariance": Control("weight of the invariance", _even(0, 30, 10)),
        "init_scale": Control("scale of the start", (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)),
        "init_rate": Control("decay rate of the start", _even(0, 20, 20)),
        "batch_size": Control("pairs in a batch N", (8, 16, 32, 64, 128, 256, 512)),
        "lr": Control("learning rate", (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)),
        "steps": Control("steps", (300, 1000, 3000, 10_000, 30_000)),
        "runs": Control("runs", tuple(range(1, 9))),
        "seed": Control("seed", tuple(range(20))),
    }
)
CHOICES = {name: settings_of(Configuration)[name].choices for name in ("loss", "views", "init")}
# What the page starts from: the command's defaults, but for one run, so that flows take less than a second.
START: Mapping[str, Any] = MappingProxyType({**resolve({}).as_dict(), "runs": 1})


def width_control(label: str, widest: int) -> Control:
    """A slider of widths: of hidden layers, of the embedding, of the augmented inputs.

    Args:
        label: Its words.
        widest: The largest value.

    Returns:
        The slider, from 1 on.
    """
    return Control(label, tuple(range(1, widest + 1)))


def needed(loss: str, views: str, depth: int, init: str) -> tuple[str, ...]:
    """Which further settings these choices have.

    Args:
        loss: The loss by name.
        views: The view convention.
        depth: Number of layers.
        init: The initialiser.

    Returns:
        Names of settings.

    Examples:
        >>> needed("dot", "two-sided", 1, "gaussian")
        ('temperature',)
    """
    has = {
        "temperature": loss in ("dot", "ntxent"),
        "invariance": loss in ("vcreg", "vicreg"),
        "view_corr": views == "correlated",
        "hidden_dim": depth > 1,
        "init_rate": init == "spectrum",
    }
    return tuple(name for name, wanted in has.items() if wanted)


def configuration_of(values: Mapping[str, Any]) -> Configuration:
    """Make the configuration of the page from the values of its sliders.

    Args:
        values: Values by setting; those that the other choices do not have are ignored.

    Returns:
        The configuration, with the flow that the page draws.

    Raises:
        SettingError: One line, for values that contradict each other.

    Examples:
        >>> found = configuration_of({"dim": 4, "out_dim": 4, "loss": "spectral", "temperature": 0.1})
        >>> found.aug_dim, found.out_dim, found.temperature, found.dynamics
        (2, None, None, ('population',))
    """
    given = {**START, **values}
    has = needed(given["loss"], given["views"], given["depth"], given["init"])
    optional = ("temperature", "invariance", "view_corr", "hidden_dim", "init_rate")
    chosen = {name: value for name, value in values.items() if name not in optional or name in has}
    for name in ("out_dim", "hidden_dim"):
        if chosen.get(name) == given["dim"]:
            del chosen[name]
    if "view_corr" in chosen:
        chosen["view_corr"] = f"{chosen['view_corr']:g}"
    return resolve({"runs": START["runs"], **chosen, "dynamics": (flow_of(given["loss"]),)})


def command(configuration: Configuration, *, with_sgd: bool = False) -> str:
    """The command line that computes what the page shows.

    Args:
        configuration: The settings.
        with_sgd: Whether the page shows SGD, too.

    Returns:
        The line.

    Examples:
        >>> command(configuration_of({"depth": 2}))
        'dyncollapse simulate --depth 2 --runs 1 --dynamics population'
    """
    shown = (*(("sgd",) if with_sgd else ()), *configuration.dynamics)
    return f"dyncollapse simulate {as_options(replace(configuration, dynamics=shown))}".rstrip()
