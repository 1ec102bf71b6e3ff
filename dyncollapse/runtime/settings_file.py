"""Settings from a TOML file, and errors that name the file and its keys instead of parameters."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dyncollapse.runtime.files import printable
from dyncollapse.runtime.records import check_value, settings_of
from dyncollapse.runtime.settings import SettingError, did_you_mean, option, quoted, renamed
from dyncollapse.runtime.untrusted import read_text

MOST_TOML = 2**14  # bytes: tomllib takes 0.5 seconds for a dotted key of this length, and 14 for one 4 times as long


def read_toml(record: type, path: Path) -> dict[str, tuple[str, Any]]:
    """Read settings of a record from the top level of a TOML file, where a hyphen may stand for an underscore.

    Args:
        record: The class, whose fields say what each may be.
        path: The file, that of the parameter `config`.

    Returns:
        Of every setting in the file, by its name: its key as written, and its value.

    Raises:
        SettingError: One line for a file that cannot be read or is no TOML, for a key that is no setting or stands
            there twice, and for a value that the record would refuse.
    """
    shown, known = _shown(path), settings_of(record)
    try:
        found = tomllib.loads(read_text(path, MOST_TOML))
    except OSError as error:
        raise SettingError(f"{shown} cannot be read ({error.strerror}); name a TOML file of settings") from None
    except RecursionError:
        raise SettingError(f"{shown} is no TOML of settings (it is nested too deeply)") from None
    except ValueError as error:  # of TOML, of UTF-8, or a number of too many digits
        reason = _plain(str(error).splitlines()[0])
        raise SettingError(f'{shown} is no TOML ({reason}); write lines as epochs = 5 and data = "digits"') from None
    settings: dict[str, tuple[str, Any]] = {}
    for key, value in found.items():
        name = key.replace("-", "_")
        if name not in known:
            told = did_you_mean(name, known, f"settings are {', '.join(known)}")
            if isinstance(value, dict):
                told = f"this is a table; write its settings at the top level, without [{_plain(key)}]"
            raise SettingError(f"{shown} has {quoted(key)}; {told}")
        if name in settings:
            raise SettingError(f"{shown} has {name} twice, as {option(name)[2:]} and {name}; keep one of them")
        try:
            settings[name] = key, check_value(record, name, value)
        except SettingError as error:
            raise by_keys(error, path, {name: key}) from None
    return settings


def by_keys(error: SettingError, path: Path, keys: Mapping[str, str]) -> SettingError:
    """Name the settings that come from a file by their keys, and the file; other settings keep their names.

    Args:
        error: What was refused.
        path: The file.
        keys: Of the settings that come from it, by name, the keys as written.

    Returns:
        The error itself where it names none of these.

    Example:
        >>> by_keys(SettingError("`d0` is 8; drop it or `projector`"), Path("run.toml"), {"d0": "d0"}).as_options()
        '--config run.toml: d0 is 8; drop it or --projector'
    """
    text = renamed(error.text, lambda name: keys.get(name, f"`{name}`"))
    return error if text == error.text else SettingError(f"{_shown(path)}: {text}")


def _shown(path: Path) -> str:
    return f"`config` {_plain(str(path))}"


def _plain(text: str) -> str:
    """Text of a user, in which nothing may pass for the name of a setting."""
    return printable(text).replace("`", "'")
