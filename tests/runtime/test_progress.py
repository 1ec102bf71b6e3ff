"""What long work says of itself where stderr is no terminal."""

import re
import time

import pytest

from dyncollapse.runtime.progress import progress_bars, progress_line


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("dyncollapse.runtime.progress.LOG_EVERY", 0.02)


def lines(capfd):
    out, err = capfd.readouterr()
    assert out == ""
    return err.splitlines()


def wait():
    time.sleep(0.1)


def test_work_that_reports_nothing_yet_is_said_to_be_under_way(capfd):
    with progress_bars(("sgd", "flow")):
        wait()
    assert {re.sub(r"[\d.]+", "N", line) for line in lines(capfd)} == {"sgd: under way for N s"}


def test_lines_go_on_while_the_work_reports_nothing(capfd):
    with progress_bars(("sgd", "flow")) as advance:
        advance("sgd", 0, 100)
        wait()
        advance("sgd", 50, 100)
        wait()
        advance("flow", 0.0, 2.0)
        advance("flow", 0.5, 2.0)
        wait()
    said = lines(capfd)
    assert sum(line.startswith("sgd: 50%, about ") for line in said) >= 2
    assert said[-1].startswith("flow: 25%, about ")
    # Half is done in 0.1 s, and no more since: what is left is said to take longer and longer.
    assert float(said[-1].split()[3]) >= 0.1


def test_counts_have_a_rate_and_what_was_done_before_is_no_pace(capfd):
    with progress_line("points") as advance:
        advance(90, 100)
        wait()
        advance(95, 100)
        wait()
        advance(100, 100)
    said = lines(capfd)
    assert said[0] == "90 of 100 points"
    (left,) = re.fullmatch(r"95 of 100 points, \d+ points/s, ([\d.]+) s left", said[-2]).groups()
    assert 0.1 <= float(left) < 1
    assert said[-1].startswith("100 of 100 points, ")


def test_nothing_new_is_not_said_to_have_been_done(capfd):
    with progress_line("points") as advance:
        advance(100, 100)
    assert lines(capfd) == []


def test_the_end_of_the_work_is_the_end_of_the_lines(capfd):
    with pytest.raises(ZeroDivisionError), progress_bars(("sgd",)):
        raise ZeroDivisionError
    wait()
    assert lines(capfd) == []
