"""What the tests of `dyncollapse diagnose` ask of it."""

import json

SAVED = {"diagnosis.json", "spectrum.csv", "report.html", "spectrum.png"}
DIM, ALIVE = 12, 8


def refuse_constant(name):
    raise AssertionError(f"{name} in JSON")


def as_json(text):
    return json.loads(text, parse_constant=refuse_constant)


def fine(result):
    assert result.exit_code == 0, (result.stderr, result.exception)
    return result
