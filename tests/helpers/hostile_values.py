"""What files hold that nobody meant to be read, and texts that do things to a terminal."""

import json
import unicodedata

ESCAPES = "red\x1b[31m bell\x07 back\r line\nturned\u202e lost\udc80"
DEEP = "[" * 50_000 + "]" * 50_000
# Text of a file that is no JSON, or none of what any file of a run holds.
FILES = {
    "empty": "",
    "half": '{"a": ',
    "deep": DEEP,
    "deep below a key": '{"recipe": ' + DEEP + "}",
    "list": "[]",
    "list of numbers": "[1, 2]",
    "number": "7",
    "text": '"text"',
    "null": "null",
    "true": "true",
    "empty object": "{}",
    "nan": '{"points": NaN, "recipe": NaN}',
    "infinite": '{"points": 1e999, "recipe": 1e999}',
    "huge integer": '{"points": ' + "9" * 5000 + "}",
    "long": json.dumps({"points": "x" * 3_000_000, "recipe": "x" * 3_000_000}),
    "escapes": json.dumps({ESCAPES: ESCAPES, "recipe": {ESCAPES: 1}, "points": [{"config": {ESCAPES: 1}}]}),
}
# Values in place of those that a file should hold.
VALUES = {
    "null": None,
    "list": [1],
    "object": {"a": 1},
    "true": True,
    "text": ESCAPES,
    "long text": "x" * 1_000_000,
    "negative": -1,
    "huge": 10**400,
    "beyond 64 bits": 2**64,
    "fraction": 1.5,
    "nested": {"a": {"b": [{"c": [[]]}]}},
}


def shown_safely(text):
    """Whether a text does nothing to a terminal but print lines."""
    return all(c == "\n" or unicodedata.category(c)[0] != "C" for c in text)


def refusal(error, make, *values, **named):
    """The line with which something of a kind of error is refused; None where it is not."""
    try:
        make(*values, **named)
    except error as caught:
        return str(caught)
    return None


def places(values, path=()):
    """Every place in nested plain values, as the keys that lead there."""
    yield path
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def replaced(values, path, other):
    """Nested plain values with another value at a place."""
    if not path:
        return other
    key, *rest = path
    copy = dict(values) if isinstance(values, dict) else list(values)
    copy[key] = replaced(values[key], rest, other)
    return copy
