"""Settings as the words of a command line that can be copied into a shell."""

import shlex
from typing import Any

from dyncollapse.runtime.files import printable
from dyncollapse.runtime.records import settings_of
from dyncollapse.runtime.settings import option


def command_line(command: str, *arguments: object, **settings: Any) -> str:
    """Write a command with its options.

    Args:
        command: The command, as "bridge diagnose".
        *arguments: Its arguments.
        **settings: Options by the name of the setting: a tuple is one value with commas, a list repeats the option, and
            an option that is None is left out.

    Returns:
        One line. Whatever a shell would not take as one word is quoted.

    Examples:
        >>> command_line("diagnose", "my z.npy", positives=["a.npy", "b.npy"], svd=True, loss=None)
        "dyncollapse diagnose 'my z.npy' --positives a.npy --positives b.npy --svd"
    """
    words = [word for name, value in settings.items() for word in _words(name, value)]
    return " ".join(["dyncollapse", command, *map(_argument, arguments), *words])


def _argument(value: object) -> str:
    """A word that is no option: a path that begins with a dash is named from the current folder."""
    text = shown(value)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def _words(name: str, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [option(name) if value else option(f"no_{name}")]
    if isinstance(value, list):
        return [word for one in value for word in _words(name, one)]
    return [option(name), shlex.quote(shown(value))]


def shown(value: Any) -> str:
    """A setting's value as the command line takes it, to the last digit."""
    if isinstance(value, tuple):
        return ",".join(map(shown, value))
    return "-" if value is None else printable(str(value)).removesuffix(".0")


def chosen(options: Any) -> dict[str, Any]:
    """The settings of a record that differ from their defaults, as `command_line` takes them.

    Args:
        options: A record of settings.

    Returns:
        Values by name; those that the command line repeats are lists.
    """
    found = dict[str, Any]()
    kind: Any = type(options)
    for name, setting in settings_of(kind).items():
        value = getattr(options, name)
        if setting.text and value != setting.default:
            found[name] = list(value) if setting.repeat else value
    return found
