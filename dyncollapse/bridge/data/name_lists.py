"""Names in messages: the first few, shortened, and the number of all."""

from collections.abc import Mapping, Sequence

from dyncollapse.runtime.files import printable

LISTED = 5  # names in a message
LONGEST = 200  # characters of a name in a message: a path may have 4096


def in_words(skipped: Mapping[tuple[str, str], Sequence[str]]) -> str:
    """How many entries were skipped for each reason, with the first few names."""
    return ", ".join(counted(kind, len(names), names) for kind, names in skipped.items())


def counted(kind: tuple[str, str], number: int, names: Sequence[str]) -> str:
    """How many entries were skipped for one reason, with the first few names.

    Args:
        kind: The reason, in singular and plural.
        number: How many there are.
        names: Their names, at least the first LISTED.

    Returns:
        The words.

    Examples:
        >>> counted(("pipe", "pipes"), 7, ["a", "b", "c", "d", "e"])
        '7 pipes (a, b, c, d, e and 2 more)'
    """
    return f"{number} {kind[number != 1]} ({some(names, number)})"


def some(names: Sequence[str], number: int | None = None) -> str:
    """The first few names, and the number of others.

    Args:
        names: The names, at least the first LISTED.
        number: How many there are; by default as many as `names`.

    Returns:
        The words.

    Examples:
        >>> some(["cat", "dog"])
        'cat, dog'
    """
    number = len(names) if number is None else number
    more = f" and {number - LISTED} more" if number > LISTED else ""
    return ", ".join(_shortened(printable(name)) for name in names[:LISTED]) + more


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}...{name[-LONGEST // 2 :]}"
