"""Errors about settings, which name the parameter in Python and the option on the command line."""

import re
import reprlib
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, Self

from dyncollapse.runtime.files import printable

NAMED = re.compile(r"`([a-z]\w*)`")
# Longest number, and most characters of a text, that a message repeats.
MOST_BITS, MOST_LETTERS = 128, 60
# Most names that a message suggests; the likeness of a slip of one letter, and of a probable slip (of preset to resume
# it is 0.67); and the letters from which on a word may stand for a longer name.
NEAR, SLIP, CLOSE, LEAST_PART = 3, 0.85, 0.72, 3


class SettingError(ValueError):
    """A setting of the wrong type, out of range or in contradiction to another; a ValueError of one line.

    The message names parameters (`batch_size`). `as_options` gives it with the command line's options instead
    (`--batch-size`).

    Attributes:
        text: The message with the names of settings in backticks.

    Examples:
        >>> error = SettingError("`batch_size` is 1; it must be at least 2")
        >>> str(error), error.as_options()
        ('batch_size is 1; it must be at least 2', '--batch-size is 1; it must be at least 2')
    """

    def __init__(self, text: str) -> None:
        """Make an error.

        Args:
            text: One line with the names of settings in backticks.
        """
        super().__init__(renamed(text, str))
        self.text = text

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        """Pickle the text with its backticks, so that the error survives the way from a worker process."""
        return type(self), (self.text,)

    def as_options(self) -> str:
        """The message as the command line prints it.

        Returns:
            One line that names options.
        """
        return renamed(self.text, option)


def renamed(text: str, spell: Callable[[str], str]) -> str:
    """Replace every name in backticks.

    Args:
        text: Text with names of settings in backticks.
        spell: Turns a name into what replaces it and its backticks.

    Returns:
        The text without backticks.

    Examples:
        >>> renamed("lower `dim` or `out_dim`", option)
        'lower --dim or --out-dim'
    """
    return NAMED.sub(lambda found: spell(found[1]), text)


def option(name: str) -> str:
    """The command line's option for a setting."""
    return "--" + name.replace("_", "-")


def quoted(value: Any) -> str:
    r"""Show any value as one short printable line, however long, deep or strange it is.

    Args:
        value: The value.

    Returns:
        At most about 120 characters, without backticks.

    Examples:
        >>> print(quoted("red" + chr(27) + "[31m"))
        'red\x1b[31m'
        >>> quoted(10**400)
        'a number of more than 38 digits'
    """
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        return "a number of more than 38 digits"
    if type(value) in (int, float, bool) or value is None:
        return repr(value)
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = MOST_LETTERS
    short.maxlevel = 2
    text = printable(short.repr(value)).replace("`", "'")
    return text if len(text) <= 2 * MOST_LETTERS else f"{text[: 2 * MOST_LETTERS]}..."


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """Suggest the known names that are spelled like a word.

    Args:
        word: What was given.
        known: The names that are allowed.
        otherwise: What to say when none is near.

    Returns:
        The end of a message.

    Examples:
        >>> did_you_mean("epoch", ["epochs", "lr"], "see the help")
        'did you mean epochs?'
        >>> did_you_mean("colour", ["epochs", "lr"], "see the help")
        'see the help'
    """
    near = near_names(word, known)
    return f"did you mean {' or '.join(near)}?" if near else otherwise


def near_names(word: str, known: Iterable[str]) -> list[str]:
    """The known names that a word is probably a slip or a part of, the likeliest first.

    Hyphens, underscores, spaces and capitals count for nothing.

    Args:
        word: What was given.
        known: The names that are allowed.

    Returns:
        At most NEAR names.

    Examples:
        >>> near_names("theorem2", ["lemma-2", "theorem-1", "theorem-2", "theorem-2-as-stated"])
        ['theorem-2', 'theorem-2-as-stated']
        >>> near_names("--resume", ["--preset", "--runs"])
        []
    """
    bare, meant = {name: _bare(name) for name in known}, _bare(word)
    holding = [name for name, text in bare.items() if len(meant) >= LEAST_PART and meant in text]

    def alike(cutoff: float) -> list[str]:
        close = get_close_matches(meant, set(bare.values()), n=NEAR, cutoff=cutoff)
        return [name for text in close for name in bare if bare[name] == text]

    begun = [name for name in holding if bare[name].startswith(meant)]
    return (sorted(begun, key=len) or alike(SLIP) or sorted(holding, key=len) or alike(CLOSE))[:NEAR]


def _bare(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()
