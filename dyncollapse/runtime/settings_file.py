"""Settings from a TOML file, with errors that name the file and its keys."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dyncollapse.runtime.files import printable
from dyncollapse.runtime.records import check_value, settings_of
from dyncollapse.runtime.settings import SettingError, did_you_mean, option, quoted, renamed
from dyncollapse.runtime.untrusted import NoFile, read_text

# Options of commands that are no settings, because they belong to one call.
NO_SETTINGS = ("out", "resume", "config", "json")
PYTHON_WORD = re.compile(r"^[ \t]*[\w-]{1,60}[ \t]*=[ \t]*(True|False|None)[ \t]*(?:#.*)?$", re.MULTILINE)
MOST_TOML = 2**14  # bytes: tomllib takes 0.5 seconds for a dotted key of this length, and 14 for one 4 times as long


def read_toml(record: type, path: Path) -> dict[str, tuple[str, Any]]:
    """Read settings from the top level of a TOML file; keys may be written with hyphens or underscores.

    Args:
        record: The class of settings, whose fields say what each may be.
        path: The file, the value of the parameter `config`.

    Returns:
        For the name of each setting in the file: its key as written, and its value.

    Raises:
        SettingError: For a file that cannot be read or is not TOML, for a key that is no setting or occurs twice, and
            for a value that the record would refuse.
    """
    shown, known = _shown(path), settings_of(record)
    try:
        text = read_text(path, MOST_TOML)
        found = tomllib.loads(text)
    except OSError as error:
        raise SettingError(f"{shown} cannot be read ({error.strerror}); name a TOML file of settings") from None
    except RecursionError:
        raise SettingError(f"{shown} is no TOML of settings (it is nested too deeply)") from None
    except NoFile as error:
        raise SettingError(f"{shown} is no TOML ({_plain(str(error))}); name a TOML file of settings") from None
    except ValueError as error:  # of TOML, of UTF-8, or a number of too many digits
        reason = _plain(str(error).splitlines()[0])
        raise SettingError(f"{shown} is no TOML ({reason}); {_advice(text)}") from None
    settings: dict[str, tuple[str, Any]] = {}
    for key, value in found.items():
        name = key.replace("-", "_")
        if name not in known:
            advice = did_you_mean(name, known, f"settings are {', '.join(known)}")
            if name in NO_SETTINGS:
                advice = f"this is no setting; give {option(name)} on the command line"
            if isinstance(value, dict):
                advice = f"this is a table; write its settings at the top level, without [{_plain(key)}]"
            raise SettingError(f"{shown} has {quoted(key)}; {advice}")
        if name in settings:
            raise SettingError(f"{shown} has {name} twice, as {option(name)[2:]} and {name}; keep one of them")
        try:
            settings[name] = key, check_value(record, name, value)
        except SettingError as error:
            plain = SettingError(error.text.removesuffix(" or None"))  # TOML has no None
            raise by_keys(plain, path, {name: key}) from None
    return settings


def _advice(text: str) -> str:
    """What to write instead of text that is no TOML."""
    found = PYTHON_WORD.search(text)
    if found is None:
        return 'write lines as epochs = 5 and data = "digits"'
    if found[1] == "None":
        return "leave out a setting that shall have its default; TOML has no None"
    return f"write {found[1].lower()} for {found[1]}; TOML has it in lower case"


def by_keys(error: SettingError, path: Path, keys: Mapping[str, str]) -> SettingError:
    """Let an error name the file and the keys of the settings that came from it; other settings keep their names.

    Args:
        error: The error.
        path: The file.
        keys: For the name of each setting that came from the file, its key as written.

    Returns:
        The new error; the same one where it names no setting of the file.

    Examples:
        >>> by_keys(SettingError("`d0` is 8; drop it or `projector`"), Path("run.toml"), {"d0": "d0"}).as_options()
        '--config run.toml: d0 is 8; drop it or --projector'
    """
    text = renamed(error.text, lambda name: keys.get(name, f"`{name}`"))
    return error if text == error.text else SettingError(f"{_shown(path)}: {text}")


def _shown(path: Path) -> str:
    return f"`config` {_plain(str(path))}"


def _plain(text: str) -> str:
    """Text from the user without backticks, so that nothing in it is taken for the name of a setting."""
    return printable(text).replace("`", "'")
