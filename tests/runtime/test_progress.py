"""What long work says of itself where stderr is no terminal."""

import re
import threading

import pytest
from helpers.waiting import eventually

from dyncollapse.runtime.progress import progress_bars, progress_line

SOON, NEVER = 0.01, 3600.0  # seconds between two lines


@pytest.fixture
def log(capfd):
    """The lines on stderr so far."""
    said = []

    def lines():
        out, err = capfd.readouterr()
        assert out == ""
        said.append(err)
        return "".join(said).splitlines()

    return lines


def test_work_that_reports_nothing_yet_is_said_to_be_under_way(log):
    with progress_bars(("sgd", "flow"), SOON):
        eventually(log)
    assert {re.sub(r"[\d.]+", "N", line) for line in log()} == {"sgd: under way for N s"}


def test_lines_go_on_while_the_work_reports_nothing(log):
    def left(name):
        found = [re.match(rf"{name}, about ([\d.]+) s left", line) for line in log()]
        return [float(match[1]) for match in found if match]

    with progress_bars(("sgd", "flow"), SOON) as advance:
        advance("sgd", 0, 100)
        advance("sgd", 50, 100)
        # Half is done, and no more since: what is left is said to take longer and longer.
        eventually(lambda: len(set(left("sgd: 50%"))) > 2)
        advance("flow", 0.0, 2.0)
        advance("flow", 0.5, 2.0)
        eventually(lambda: left("flow: 25%"))
    assert left("sgd: 50%") == sorted(left("sgd: 50%"))
    assert log()[-1].startswith("flow: 25%, about ")


def test_counts_have_a_rate_and_what_was_done_before_is_no_pace(log):
    with progress_line("points", SOON) as advance:
        advance(90, 100)
        eventually(lambda: "90 of 100 points" in log())
        advance(95, 100)
        eventually(lambda: log()[-1].startswith("95 of 100 points, "))
        advance(100, 100)
    rate, left = re.search(r"95 of 100 points, ([\d.e+]+) points/s, ([\d.]+) s left", "\n".join(log())).groups()
    assert float(rate) * float(left) == pytest.approx(5, rel=0.1)  # each has two digits
    assert log()[-1].startswith("100 of 100 points, ")


def test_nothing_new_is_not_said_to_have_been_done(log):
    with progress_line("points", NEVER) as advance:
        advance(100, 100)
    assert log() == []


def test_the_end_of_the_work_is_the_end_of_the_lines():
    before = threading.enumerate()
    with pytest.raises(ZeroDivisionError), progress_bars(("sgd",), SOON):
        raise ZeroDivisionError
    assert threading.enumerate() == before
