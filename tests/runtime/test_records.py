"""Fields of records: what each declares, how a docstring lists it, and how refusals are reported."""

import inspect
import math
import time
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from typing import Literal

import numpy as np
import pytest
from helpers.hostile_values import ESCAPES, VALUES, refusal, shown_safely

from dyncollapse.runtime.records import (
    MOST_TEXT,
    Number,
    Several,
    Text,
    Whole,
    check_value,
    from_values,
    record,
    setting,
    settings_of,
)
from dyncollapse.runtime.settings import SettingError


@record
class Bath:
    """A bath."""

    depth: Whole = setting(2, "Depth.", group="size", unit="inches", low=1, high=80)
    heat: Number | None = setting(None, "Heat.", group="water", unit="degrees", low=0, below=100, unset="as `depth`")
    salt: Number = setting(0.0, "Salt.", group="water", above=-1)
    foam: bool = setting(True, "Foam.", group="water")
    toys: Several[Literal["duck", "boat"]] = setting(("duck",), "Toys.", group="size")
    shape: Literal["oval", "round"] = setting("oval", "Shape.", group="size")
    name: Text = setting("", "Name.")
    code: Text = setting("a1", "Code.", pattern="[a-z][0-9]", must="write a letter and a digit")

    def __post_init__(self):
        if self.shape == "round" and self.depth > 10:
            raise SettingError("`depth` is beyond 10 with `shape` round; drop one of them")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"depth": 0}, "depth is 0; it must be between 1 and 80 inches"),
        ({"depth": 2.5}, "depth is 2.5; it takes whole numbers"),
        ({"depth": True}, "depth is True; it takes whole numbers"),
        ({"depth": "2"}, "depth is '2'; it takes whole numbers"),
        ({"depth": None}, "depth is None; it takes whole numbers"),
        ({"depth": math.inf}, "depth is inf; it takes whole numbers"),
        ({"depth": math.nan}, "depth is nan; it takes whole numbers"),
        ({"depth": 10**400}, "depth is a number of more than 38 digits; it must be between 1 and 80 inches"),
        ({"heat": 100}, "heat is 100.0; it must be at least 0 and below 100 degrees"),
        ({"heat": math.nan}, "heat is nan; it must be at least 0 and below 100 degrees"),
        ({"heat": -(10**400)}, "heat is -inf; it must be at least 0 and below 100 degrees"),
        ({"heat": "warm"}, "heat is 'warm'; it takes numbers or None"),
        ({"salt": -1}, "salt is -1.0; it must be above -1"),
        ({"salt": math.inf}, "salt is inf; it must be above -1"),
        ({"foam": 1}, "foam is 1; it takes True or False"),
        ({"toys": ["duck", "whale"]}, "toys is 'whale'; choose one of duck, boat"),
        ({"toys": "duck"}, "toys is 'duck'; it takes names"),
        ({"toys": (1,)}, "toys is 1; choose one of duck, boat"),
        ({"shape": 3}, "shape is 3; choose one of oval, round"),
        ({"shape": "\udc80"}, r"shape is '\udc80'; choose one of oval, round"),
        ({"name": b"x"}, "name is b'x'; it takes text"),
        ({"name": "x" * (MOST_TEXT + 1)}, f"it has {MOST_TEXT + 1} characters, and at most {MOST_TEXT} are allowed"),
        ({"code": "a"}, "code is 'a'; write a letter and a digit"),
        ({"code": "a1\n"}, r"code is 'a1\n'; write a letter and a digit"),
        ({"depht": 3}, "there is no setting 'depht'; the settings are depth, heat, salt"),
        ({"shape": "round", "depth": 11}, "depth is beyond 10 with shape round; drop one of them"),
    ],
)
def test_refusals_are_one_line_in_our_words(given, words):
    with pytest.raises(SettingError) as caught:
        Bath(**given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_too_many_values_are_refused():
    with pytest.raises(SettingError, match="there is no setting '8'; the settings are"):
        Bath(2, None, 0.0, True, (), "oval", "", "a1", 9)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"depth": 3.0}, 3),
        ({"depth": np.int64(3)}, 3),
        ({"depth": Fraction(6, 2)}, 3),
        ({"heat": 3}, 3.0),
        ({"heat": Fraction(1, 4)}, 0.25),
        ({"heat": np.float32(0.5)}, 0.5),
        ({"heat": None}, None),
        ({"toys": ["boat"]}, ("boat",)),
        ({"name": "\udcff"}, "\udcff"),  # a file's name that is no UTF-8
        ({"name": "x" * MOST_TEXT}, "x" * MOST_TEXT),
    ],
)
def test_values_are_kept_as_their_type(given, kept):
    ((name, value),) = given.items()
    found = getattr(Bath(**given), name)
    assert (type(found), found) == (type(kept), kept)
    assert check_value(Bath, name, value) == kept


@pytest.mark.parametrize("name", settings_of(Bath))
def test_one_value_is_judged_as_in_the_record(name):
    for value in (*VALUES.values(), ESCAPES, "duck", "oval", "a1", False, 0, 1, 2.0, ["duck"], ("boat", "boat")):
        message = refusal(SettingError, Bath, **{name: value})
        assert refusal(SettingError, check_value, Bath, name, value) == message
        assert message is None or shown_safely(message)
        assert message or check_value(Bath, name, value) == getattr(Bath(**{name: value}), name)


def test_of_many_wrong_parts_the_first_is_reported_at_once():
    begun = time.process_time()
    with pytest.raises(SettingError, match="toys is 'whale'; choose one of duck, boat"):
        Bath(toys=["duck"] * 10**6 + ["whale"] * 10**6)
    assert time.process_time() - begun < 2


def test_replacing_checks_again_and_nothing_is_assigned():
    bath = Bath(depth=20)
    with pytest.raises(SettingError, match="drop one of them"):
        replace(bath, shape="round")
    with pytest.raises(FrozenInstanceError):
        bath.depth = 3
    assert replace(bath, depth=10, shape="round") == Bath(depth=10, shape="round")
    assert hash(Bath(depth=20.0)) == hash(bath)


def test_fields_say_what_is_shown_of_them():
    found = settings_of(Bath)
    assert list(found) == ["depth", "heat", "salt", "foam", "toys", "shape", "name", "code"]
    assert [one.standard for one in found.values()] == ["2 inches", "as `depth`", "0", "yes", "duck", "oval", "", "a1"]
    assert [one.range for one in found.values()][:3] == ["between 1 and 80", "at least 0 and below 100", "above -1"]
    assert (found["heat"].type, found["heat"].optional, found["toys"].type) == (float, True, tuple)
    assert (found["toys"].choices, found["shape"].choices) == (("duck", "boat"), ("oval", "round"))
    assert found["depth"]._replace(default=1).standard == "1 inch"
    assert found["depth"]._replace(default=1, unit="layers").standard == "1 layer"
    assert found["depth"]._replace(low=2, high=10**9).range == "between 2 and 1e9"
    assert found["depth"]._replace(low=0, high=2**63 - 1).range == "between 0 and 2^63 - 1"


def test_a_file_holds_every_setting_and_no_other():
    values = {name: getattr(Bath(), name) for name in settings_of(Bath)}
    assert from_values(Bath, values) == Bath()
    with pytest.raises(SettingError, match="the setting heat is missing"):
        from_values(Bath, {name: value for name, value in values.items() if name != "heat"})
    with pytest.raises(SettingError, match="there is no setting 'rim'"):
        from_values(Bath, values | {"rim": 1})


def test_the_docstring_lists_fields_with_help_range_and_default():
    doc = " ".join(inspect.getdoc(Bath).split())
    assert doc.startswith("A bath. Attributes: depth: Depth. [between 1 and 80 inches; default: 2 inches]")
    assert "heat: Heat. [at least 0 and below 100 degrees; default: as `depth`]" in doc
    assert "foam: Foam. [default: yes]" in doc
    assert "code: Code. [default: a1]" in doc


def test_fields_come_before_the_sections_that_a_docstring_has():
    @record
    class Cup:
        """A cup.

        Raises:
            SettingError: For a cup that is too large.

        Example:
            >>> Cup().volume
            1.0
        """

        volume: Number = setting(1.0, "Volume.", low=0)
        note: Text | None = setting(None, "")

    expected = """A cup.

        Attributes:
            volume: Volume. [at least 0; default: 1.0]

        Raises:
            SettingError: For a cup that is too large.

        Example:
            >>> Cup().volume
            1.0
        """
    assert inspect.getdoc(Cup) == inspect.cleandoc(expected)
