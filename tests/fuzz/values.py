"""JSON that is not what it should be."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Values that stand where others should; a name, since what a step holds has to be plain JSON itself.
VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "zero": 0,
    "minus": -1,
    "half": 0.5,
    "huge": 10**40,
    "int64": 2**63 - 1,
    "million": 1_000_000,
    "float": 1e300,
    "nan": float("nan"),
    "inf": float("inf"),
    "empty": "",
    "text": "text",
    "escape": "\x1b[31mred\x1b]0;title\x07\r\n\x9b31m",
    "unicode": "日本\u202e",
    "surrogate": "\ud800",
    "path": "../../etc/passwd",
    "long": "x" * 100_000,
    "list": [],
    "lists": [[[]], {}],
    "dict": {},
    "deep": "DEEP",
    "words": {"step": "a", "loss": [1], "dimensions": {}, "top1": "x"},
    "numbers": [1, "2", None],
}
ACTIONS = ("set", "set", "set", "delete", "rename", "wrap", "twice", "add")
ROOT, DOWN = 0.05, 0.8  # chances to stay at the root, and to go further down
DEEP = "[" * 50_000 + "]" * 50_000


def nodes(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in nested values, as what holds it and its key.

    What several places hold is entered once: 45 levels of two references each have more paths than memory has bytes,
    and a dict that holds itself has no last one.
    """
    entered, waiting = set[int](), [content]
    while waiting:
        holder = waiting.pop()
        if id(holder) in entered or not isinstance(holder, dict | list):
            continue
        entered.add(id(holder))
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        yield from ((holder, key) for key in keys)
        waiting += [holder[key] for key in reversed(keys)]


def _place(content: Any, part: float) -> tuple[Any, Any] | None:
    """A place by a walk down from the root, which a long list does not draw to itself; None for the root."""
    rng, place = random.Random(repr(part)), None
    while isinstance(content, dict | list) and content and (place is None or rng.random() < DOWN):
        if place is None and rng.random() < ROOT:
            return None
        key = rng.choice(list(content)) if isinstance(content, dict) else rng.randrange(len(content))
        place, content = (content, key), content[key]
    return place


def altered(content: Any, part: float, action: str, value: str) -> Any:
    """Nested values with one place changed, which `part` stands for."""
    place = _place(content, part)
    if place is None:
        return VALUES[value]
    holder, key = place
    if action == "set":
        holder[key] = VALUES[value]
    elif action == "wrap":
        holder[key] = [holder[key]] if value < "m" else {"value": holder[key]}
    elif action == "delete":
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, holder[key] if action == "twice" else VALUES[value])
    elif action == "rename":
        holder[str(VALUES[value])[:200]] = holder.pop(key)
    else:
        holder[f"{key}_{value}"] = VALUES[value]
    return content


def _text(content: Any) -> str:
    return json.dumps(content).replace('"DEEP"', DEEP)


def change_json(path: Path, part: float, action: str, value: str) -> None:
    """One place of a JSON file changed."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):  # an earlier step broke it
        return
    path.write_text(_text(altered(content, part, action, value)))


def change_lines(path: Path, line: float, part: float, action: str, value: str) -> None:
    """One place of one line of JSON lines changed."""
    try:
        lines = path.read_text().splitlines()
        number = int(line * len(lines))
        lines[number] = _text(altered(json.loads(lines[number]), part, action, value))
    except (ValueError, IndexError, RecursionError):
        return
    path.write_text("\n".join(lines) + "\n")
