"""What every result of Python promises: short reprs, values that JSON takes, rows of one shape, frames of numbers."""

import inspect
import json
import math

import numpy as np
import pytest
import torch
from click import Command

from dyncollapse import Monitor, diagnose, simulate, sweep, verify
from dyncollapse.bridge import PredictOptions, predict
from dyncollapse.claims.check import Measured, claim, run_check
from dyncollapse.claims.result import VerifyResult
from dyncollapse.commands.pages.diagnose import diagnose as diagnose_page
from dyncollapse.commands.pages.simulate import simulate as simulate_page
from dyncollapse.commands.pages.verify import verify as verify_page
from dyncollapse.diagnostics.options import DiagnosisOptions
from dyncollapse.runtime.results import html_table, plain
from dyncollapse.simulation.configuration import Configuration

LONGEST = 400  # characters of a repr: a few lines of a notebook
QUICK = {"dim": 4, "runs": 2, "steps": 10}


def embeddings(n=300, d=6):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def monitored(**options):
    monitor = Monitor()
    monitor.update(embeddings(), embeddings() * 1.1)
    return monitor.compute(**options)


@claim("infinite", "a source", "a number")
def infinite():
    """This one measures infinity."""
    return Measured(math.inf, 2.0)


@claim("broken", "a source", "a number")
def broken():
    """This one breaks down."""
    raise RuntimeError("no <number>")


RESULTS = {
    "simulate": lambda: simulate(**QUICK),
    "simulate, one dynamics": lambda: simulate(**QUICK, dynamics=("population",)),
    "simulate, more outputs": lambda: simulate(**QUICK, out_dim=6),
    "simulate, relu": lambda: simulate(**QUICK, activation="relu", depth=2),
    "simulate, no closed form": lambda: simulate(**QUICK, loss="vicreg"),
    "simulate, byol": lambda: simulate(**QUICK, loss="byol"),
    "simulate, unaugmented": lambda: simulate(**QUICK, aug_dim=0),
    "simulate, one dimension": lambda: simulate(dim=1, aug_dim=1, runs=1, steps=5),
    "sweep": lambda: sweep(**QUICK, dynamics=("population",), aug_strength=[0.5, 1.5], workers=1),
    "sweep, unlike points": lambda: sweep(
        **QUICK, loss=["infonce", "vicreg"], dynamics=[("sgd",), ("sgd", "flow")], workers=1
    ),
    "sweep, failed": lambda: sweep(dim=4, runs=1, steps=5, dynamics=("sgd",), lr=1e12, weight_decay=1.0, workers=1),
    "verify": lambda: verify(["lemma-1", "theorem-2-as-stated"]),
    "verify, unlike expected": lambda: VerifyResult([run_check(infinite), run_check(broken)]),
    "verify, nothing": lambda: VerifyResult([]),
    "diagnose": lambda: diagnose(embeddings()),
    "diagnose, two views": lambda: diagnose(embeddings(), embeddings() + 0.1),
    "diagnose, one-sided": lambda: diagnose(embeddings(), embeddings() + embeddings().flip(0), views="one-sided"),
    "diagnose, constant": lambda: diagnose(torch.ones(20, 4)),
    "diagnose, zero": lambda: diagnose(torch.zeros(5, 3), torch.zeros(5, 3)),
    "diagnose, two rows": lambda: diagnose(embeddings(2)),
    "diagnose, wide": lambda: diagnose(embeddings(40, 300)),
    "diagnose, half precision": lambda: diagnose(embeddings().half()),
    "diagnose, NumPy": lambda: diagnose(embeddings().numpy()),
    "monitor": monitored,
    "monitor, quick": lambda: monitored(intervals=False, compare=False),
    "predict": lambda: predict(PredictOptions("digits", images=200, directions=6, loss=("spectral", "byol"))),
}


@pytest.fixture(params=RESULTS, scope="module")
def result(request):
    return RESULTS[request.param]()


def strange(value, path=""):
    """Places of values that JSON does not take, or that are no plain Python."""
    if isinstance(value, dict):
        bad = [f"{path}: {key!r}" for key in value if type(key) is not str]
        return bad + [found for key, one in value.items() for found in strange(one, f"{path}.{key}")]
    if type(value) is list:
        return [found for k, one in enumerate(value) for found in strange(one, f"{path}[{k}]")]
    if type(value) not in (int, float, str, bool, type(None)):
        return [f"{path}: {type(value)}"]
    return [f"{path}: {value}"] if isinstance(value, float) and not math.isfinite(value) else []


def test_values_are_json_and_come_back_the_same(result):
    values = result.to_dict()
    assert strange(values) == []
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_rows_have_one_set_of_keys_and_are_json(result):
    rows = result.rows()
    assert strange(rows) == []
    assert len({tuple(row) for row in rows}) <= 1
    assert all("\n" not in key for row in rows for key in row)


def test_frames_hold_numbers_where_numbers_are_compared(result):
    frame = result.to_pandas()
    assert len(frame) == len(result.rows())
    for name in frame if len(frame) else ():
        values = [row[name] for row in result.rows()]
        if all(value is None or type(value) in (int, float) for value in values):
            assert frame[name].dtype.kind in "if", name
            assert not (frame[name] > math.inf).any()
        assert list(frame) == list(result.rows()[0])


def test_reprs_are_short_and_one_line(result):
    assert len(repr(result)) <= LONGEST
    assert "\n" not in repr(result)
    assert " object at 0x" not in repr(result)
    for name in ("verdict", "outcome", "trajectories", "simulation"):
        if hasattr(result, name):
            assert len(repr(getattr(result, name))) <= LONGEST, name


def test_notebooks_get_text_without_anything_to_run(result):
    text = result._repr_html_()
    assert text.startswith("<p>")
    assert len(text) < 60_000
    assert "<script" not in text
    assert "NaN" not in text
    assert text.count("<tr>") <= 202


def test_names_and_defaults_of_commands_are_those_of_functions():
    def named(page: Command) -> set[str]:
        return {one.name for one in page.params if one.name is not None} - {"help", "as_json", "as_html"}

    own = inspect.signature(verify).parameters
    assert named(verify_page) == set(own) - {"progress"}
    assert own["workers"].default is None
    options, own = inspect.signature(DiagnosisOptions).parameters, inspect.signature(diagnose).parameters
    assert {name: one.default for name, one in options.items()} == {name: own[name].default for name in options}
    others = {"by", "tokens", "executor", "workers", "scheduler", "slurm"}  # of diagnose_by, _tokens and _shards
    assert named(diagnose_page) - {"file", "key", "out", "as_csv"} - others == set(own) - {"z", "progress"}
    assert set(inspect.signature(Configuration).parameters) | {"plot", "format", "out"} >= named(simulate_page)


def test_plain_takes_what_libraries_give():
    given = {"a": np.float32(0.5), "b": torch.tensor([1.0, math.nan]), 3: (np.int64(2), True, None, "x"), "c": math.inf}
    assert plain(given) == {"a": 0.5, "b": [1.0, None], "3": [2, True, None, "x"], "c": None}


def test_tables_escape_and_count():
    text = html_table(["<b>"], [{"<i>": f"{k}&"} for k in range(5)], most=2)
    assert "<b>" not in text
    assert "<i>" not in text
    assert text.count("<tr>") == 3
    assert "3 more rows" in text
