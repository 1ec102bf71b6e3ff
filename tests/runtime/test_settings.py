"""Settings as records: what each may be, in Python and on the command line, and what a message says."""

import math
import pickle
from dataclasses import fields, replace

import pytest
from click.testing import CliRunner
from helpers.hostile_values import DEEP, ESCAPES, VALUES, shown_safely
from helpers.programs import refused

from dyncollapse.bridge.recipe import Recipe
from dyncollapse.commands.main import main
from dyncollapse.runtime.records import from_values, settings_of
from dyncollapse.runtime.settings import SettingError, option, quoted
from dyncollapse.simulation.configuration import Configuration

RECORDS = {Configuration: Configuration(), Recipe: Recipe(data="digits")}
EVERY = [(record, field.name) for record in RECORDS for field in fields(record)]
NUMBERS = [(record, name) for record, name in EVERY if settings_of(record)[name].type in (int, float)]


def beyond(record, name):
    """Numbers just outside of a setting's range."""
    kind, found = settings_of(record)[name].type, settings_of(record)[name]
    if kind is int:
        return [found.low - 1, found.high + 1]
    low = -1e-9 if found.low == 0 else found.low / 2
    return [low, found.below if found.high is None else found.high * 2]


# Values of VALUES that a setting of a type could have.
FITTING = {int: {"beyond 64 bits", "negative"}, float: {"beyond 64 bits", "negative", "fraction"}, bool: {"true"}}
FITTING |= {str: {"text"}, tuple: set()}
WRONG = [
    (record, name, value)
    for record, name in EVERY
    for value in VALUES.keys() - FITTING[settings_of(record)[name].type]
    if not (value == "null" and settings_of(record)[name].optional)
]


@pytest.mark.parametrize("record", RECORDS)
def test_other_types_and_sizes_are_refused_in_one_short_line(record):
    for name, value in [(name, value) for owner, name, value in WRONG if owner is record]:
        with pytest.raises(SettingError) as caught:
            replace(RECORDS[record], **{name: VALUES[value]})
        message = str(caught.value)
        assert message.startswith(f"{name} is "), (name, value)
        assert len(message) < 400, (name, value)
        assert shown_safely(message), (name, value)
        assert "\n" not in message, (name, value)


@pytest.mark.parametrize(("record", "name"), NUMBERS)
def test_numbers_beyond_their_range_are_refused_alike_in_python_and_on_the_command_line(record, name):
    command = ["simulate"] if record is Configuration else ["bridge", "pretrain", "--data", "digits"]
    wrong = [*beyond(record, name), *([math.nan, math.inf] if settings_of(record)[name].type is float else [])]
    for value in wrong:
        with pytest.raises(SettingError) as caught:
            replace(RECORDS[record], **{name: value})
        assert str(caught.value).startswith(f"{name} is ")
        assert caught.value.as_options().startswith(f"{option(name)} is ")
        message = refused(CliRunner().invoke(main, [*command, option(name), str(value)]))
        assert message == f"dyncollapse: {caught.value.as_options()}"


# What a setting's ends need beside them.
COMPANY = {
    "dim": {"aug_dim": 0},
    "aug_dim": {"dim": 10**4},
    "hidden_dim": {"depth": 2},
    "case": {"preset": "authors-code"},
    "temperature": {"loss": "dot"},
    "invariance": {"loss": "vcreg"},
    "predictor_rate": {"loss": "simsiam"},
    "target_momentum": {"loss": "byol"},
    "init_rate": {"init": "spectrum"},
    "pool": {"batch_size": 2},
    "d0": {"projector": "low-rank"},
    "epochs": {"warmup_epochs": 0.0},
    "weight_decay": {"optimiser": "sgd"},
}


@pytest.mark.parametrize(("record", "name"), NUMBERS)
def test_ends_of_a_range_are_in_it(record, name):
    company = {key: value for key, value in COMPANY.get(name, {}).items() if key in settings_of(record)}
    if name == "batch_size" and record is Configuration:
        company = {"pool": 0}
    found = settings_of(record)[name]
    for value in {found.low, found.high if name != "warmup_epochs" else 1} - {None}:
        assert getattr(replace(RECORDS[record], **company, **{name: value}), name) == value


def test_numbers_are_kept_as_their_type():
    c = Configuration(lr=1, dim=16.0, seed=2**63 - 1)
    assert (type(c.lr), type(c.dim), c.seed) == (float, int, 2**63 - 1)
    assert Configuration(dynamics=["sgd"]).dynamics == ("sgd",)
    assert c == Configuration(lr=1.0, dim=16, seed=2**63 - 1)


@pytest.mark.parametrize("record", RECORDS)
def test_records_come_back_from_their_values(record):
    values = RECORDS[record].as_dict()
    assert from_values(record, values) == RECORDS[record]
    for wrong, words in (
        ({**values, ESCAPES: 1}, "there is no setting 'red"),
        ({name: value for name, value in values.items() if name != "lr"}, "the setting lr is missing"),
        ([values], "not a table of names and values"),
        (None, "not a table of names and values"),
        ({**values, "lr": "fast"}, "lr is 'fast'; it takes numbers"),
        ({**values, 7: 1}, "there is no setting 7"),
    ):
        with pytest.raises(SettingError, match=words) as caught:
            from_values(record, wrong)
        assert shown_safely(str(caught.value))
        assert "\n" not in str(caught.value)


def test_errors_name_parameters_and_the_command_line_options():
    error = SettingError("`aug_dim` is 9; it must be between 0 and `dim` 8")
    assert str(error) == "aug_dim is 9; it must be between 0 and dim 8"
    assert error.as_options() == "--aug-dim is 9; it must be between 0 and --dim 8"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.as_options()) == (str(error), error.as_options())


def test_values_are_quoted_shortly_and_safely():
    nested = []
    for _ in range(10_000):
        nested = [nested]
    for value in (ESCAPES * 10_000, DEEP, nested, 10**5000, -(10**400), {ESCAPES: [ESCAPES] * 1000}, b"\x1b", ESCAPES):
        assert len(quoted(value)) < 400
        assert shown_safely(quoted(value))
        assert "\n" not in quoted(value)
    assert quoted("a `lr` b") == "'a 'lr' b'"
