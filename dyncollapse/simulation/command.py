"""The command line that gives a configuration."""

from typing import Any

from dyncollapse.runtime.command_line import command_line
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.presets import REPLACED, resolve


def as_options(configuration: Configuration) -> str:
    """The options of `dyncollapse simulate` that give this configuration; those that are defaults are left out."""
    return simulate_command(configuration).removeprefix("dyncollapse simulate").strip()


def simulate_command(configuration: Configuration) -> str:
    """The command that runs this configuration.

    Args:
        configuration: The settings; where they save is left out.

    Returns:
        One line.

    Examples:
        >>> simulate_command(resolve({"depth": 2, "aug_strength": 0.3}))
        'dyncollapse simulate --aug-strength 0.3 --depth 2'
    """
    return command_line("simulate", **necessary(configuration))


def necessary(configuration: Configuration) -> dict[str, Any]:
    """The settings from which all others follow."""
    taken = [others for name, others in REPLACED.items() if getattr(configuration, name) is not None]
    replaced = {other for others in taken for other in others}
    settings = {
        name: value
        for name, value in vars(configuration).items()
        if value is not None and name != "out" and name not in replaced
    }
    defaults = vars(resolve({}))
    given = {name: value for name, value in settings.items() if value != defaults[name]}
    implied = vars(resolve(given))
    return {name: value for name, value in settings.items() if name in given or value != implied[name]}
