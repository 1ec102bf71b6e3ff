"""Remedies: what to try for the cause of a collapse, and what would tell open causes apart."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from dyncollapse.runtime.settings import renamed

TITLES = {"remedy": "What to try:", "check": "What would tell the causes apart:"}
MOST_LINES = 8  # of remedies on a terminal, so that the verdict stays in sight
WIDTH = 80


@dataclass(frozen=True)
class Remedy:
    """One thing to try, or one measurement that would tell causes apart.

    Its premise was measured in the same run: what a report does not show has no remedy in it.

    Attributes:
        action: What to do, one imperative sentence. Names of settings are in backticks.
        effect: What it would do, in a sentence or two, with numbers where closed forms give them; empty where nothing
            is known.
        source: Where that stands.
        kind: "remedy", or "check" for a measurement that would tell causes apart.

    References:
        docs/how-to/remedies.md.

    Examples:
        >>> one = Remedy("Train for more `steps`.", "The count should fall.", "docs: beyond the paper, 5f")
        >>> one.as_values()["try"], one.kind
        ('Train for more steps.', 'remedy')
    """

    action: str
    effect: str
    source: str
    kind: Literal["remedy", "check"] = "remedy"

    def as_values(self) -> dict[str, str]:
        """Return plain values for JSON.

        Returns:
            The keys "try", "effect", "source" and "kind"; settings are named as in Python.
        """
        return {
            "try": renamed(self.action, str),
            "effect": renamed(self.effect, str),
            "source": self.source,
            "kind": self.kind,
        }


def counted(number: int, kind: str = "dimension") -> str:
    """A number of things in words, as 1 dimension or 2 dimensions."""
    return f"{number} {kind}{'s'[: number != 1]}"


def every(number: int, kind: str = "dimension") -> str:
    """All of a number of things: "the only dimension", "both dimensions" or "all 3 dimensions"."""
    return f"the only {kind}" if number == 1 else f"both {kind}s" if number == 2 else f"all {number} {kind}s"


def _in_python(text: str) -> str:
    return renamed(text, str)


def remedy_lines(remedies: Sequence[Remedy], spell: Callable[[str], str] = _in_python, width: int = WIDTH) -> list[str]:
    """Write remedies as lines for a terminal: first what to try, then what would tell causes apart.

    Args:
        remedies: The remedies, most useful first.
        spell: Turns a text, with names of settings in backticks, into what is printed.
        width: Most characters of a line.

    Returns:
        The lines. At least one remedy of each kind is written; those that would make more than about MOST_LINES lines
        are counted instead.

    Examples:
        >>> remedy_lines([Remedy("Train longer.", "The count should fall.", "docs")])
        ['What to try:', '- Train longer. The count should fall.']
    """
    lines, left_out = list[str](), 0
    for kind, title in TITLES.items():
        chosen = [one for one in remedies if one.kind == kind]
        for number, one in enumerate(chosen):
            text = spell(f"{one.action} {one.effect}".strip())
            wrapped = textwrap.wrap(text, width, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
            if number and len(lines) + len(wrapped) > MOST_LINES:
                left_out += 1
                continue
            lines += [title, *wrapped] if not number else wrapped
    if left_out:
        lines.append(f"({left_out} more in the JSON report, under remedies)")
    return lines
