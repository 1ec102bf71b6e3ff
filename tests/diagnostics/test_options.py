"""One record says what a diagnosis may be asked, in Python and on the command line."""

import inspect

import click
import pytest

from dyncollapse import Monitor, diagnose
from dyncollapse.commands.main import main
from dyncollapse.diagnostics.options import DiagnosisOptions
from dyncollapse.model import covariance
from dyncollapse.runtime.records import settings_of

NAMES = settings_of(DiagnosisOptions)


def test_losses_are_those_that_weigh_pairs():
    assert NAMES["loss"].choices == tuple(covariance.WEIGHINGS)


@pytest.mark.parametrize("function", [diagnose, Monitor])
def test_python_has_the_same_names_and_defaults(function):
    known = {name: one.default for name, one in inspect.signature(function).parameters.items() if name in NAMES}
    assert known
    assert known == {name: NAMES[name].default for name in known}
    if function is diagnose:
        assert known.keys() == NAMES.keys()


def test_the_command_has_an_option_for_each():
    context = click.Context(main)
    options = {one.name for one in main.get_command(context, "diagnose").params}
    assert NAMES.keys() <= options
