"""The text chart of a spectrum says what is in it, in any width and without Unicode."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyncollapse.commands.spectrum_chart import spectrum_lines


def body(lines):
    """The chart without its numbers: what stands between the axis and the names of the levels."""
    return [line.split("|", 1)[1] for line in lines if "|" in line]


def dots(lines):
    """(row, column) of every dot, in the order of columns."""
    found = [(r, c) for r, line in enumerate(body(lines)) for c, mark in enumerate(line) if mark == "•"]
    return sorted(found, key=lambda place: place[1])


def test_levels_and_cliff_are_where_they_belong():
    lines = spectrum_lines([1.0] * 32 + [1e-10] * 32, floor=1e-12, threshold=1e-4)
    found = dots(lines)
    assert [row for row, _ in found] == [0] * 32 + [9] * 32  # of 12 lines over 12 decades
    assert "═ collapsed below" in body(lines)[4]
    assert "┄ noise floor" in body(lines)[11]
    assert lines[1].startswith("   0.0 |")
    assert lines[-2].startswith(" -12.0 |")
    assert lines[-1].split() == ["1", "64"]


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 16, 40, 64])
def test_every_dimension_has_a_dot_over_its_rank(dim):
    lines = spectrum_lines([1.0] * dim, 1e-14, 1e-4)
    found = dots(lines)
    assert len(found) == dim
    ranks = lines[-1]
    assert ranks.split() == (["1"] if dim == 1 else ["1", str(dim)])
    assert ranks.index("1") == 8 + found[0][1]
    assert len(ranks) == 9 + found[-1][1]


def test_more_dimensions_than_columns_share_them():
    lines = spectrum_lines([2.0**-k for k in range(2048)], 0.0, 0.0, width=50)
    assert [column for _, column in dots(lines)] == list(range(50))
    rows = [row for row, _ in dots(lines)]
    assert rows == sorted(rows)


def test_one_name_for_two_levels_on_a_line():
    lines = spectrum_lines([1.0, 1e-9], floor=1e-9, threshold=1.1e-9)
    assert sum("collapsed below (noise floor)" in line for line in lines) == 1


@pytest.mark.parametrize("floor", [0.0, 1e-90])
def test_nothing_varies(floor):
    assert spectrum_lines([0.0, 0.0], floor, floor) == ["(nothing varies: every variance is 0)"]


def test_zeros_are_at_the_bottom_and_it_says_so():
    lines = spectrum_lines([1.0, 0.0], 1e-14, 1e-4)
    assert "0 at the bottom" in lines[0]
    assert [row for row, _ in dots(lines)] == [0, 11]


@given(
    values=st.lists(st.floats(0, 1e300), min_size=1, max_size=80),
    levels=st.tuples(st.floats(0, 1e300), st.floats(0, 1e300)),
    width=st.integers(1, 100),
)
def test_any_spectrum_fits_and_plain_is_ascii(values, levels, width):
    values = sorted(values, reverse=True)
    lines = spectrum_lines(values, *levels, plain=True, width=width)
    assert "\n".join(lines).isascii()
    names = len(" collapsed below (noise floor)")
    assert all(len(line) <= max(40, 8 + math.ceil(width) + names) and line == line.rstrip() for line in lines)
    assert "-0.0" not in "\n".join(lines)
