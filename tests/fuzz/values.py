"""JSON that is not what it should be."""

import json
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
DEEP = "[" * 50_000 + "]" * 50_000


def nodes(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in nested values, as what holds it and its key."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield content, key
        yield from nodes(value)


def altered(content: Any, part: float, action: str, value: str) -> Any:
    """Nested values with one place changed; `part` of the way through all places."""
    places = list(nodes(content))
    number = int(part * (len(places) + 1)) - 1
    if number < 0 or not places:
        return VALUES[value]
    holder, key = places[number]
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
    except ValueError:  # an earlier step broke it
        return
    path.write_text(_text(altered(content, part, action, value)))


def change_lines(path: Path, line: float, part: float, action: str, value: str) -> None:
    """One place of one line of JSON lines changed."""
    lines = path.read_text().splitlines()
    number = int(line * len(lines))
    try:
        lines[number] = _text(altered(json.loads(lines[number]), part, action, value))
    except (ValueError, IndexError):
        return
    path.write_text("\n".join(lines) + "\n")
