"""Making a try stays small, whatever an earlier step has left in its file."""

import time

import pytest
import torch

from fuzz.make import change
from fuzz.runner import Runner, Try, bounded
from fuzz.tensors import ODD, read_tree
from fuzz.values import nodes

ROOM, SECONDS = 2**28, 5


def levels(count):
    level = {"w": 1}
    for _ in range(count):
        level = {"x": level, "y": level}
    return level


def changed(folder, *steps):
    """What a file of two tensors holds after steps that have to stay small and fast."""
    torch.save({"a": torch.ones(3, 2), "b": {"c": torch.ones(4)}}, folder / "a.pt")
    start = time.process_time()
    with bounded(ROOM):
        for step in steps:
            change(folder, ("tensors", "a.pt", *step))
    assert time.process_time() - start < SECONDS
    return read_tree(folder / "a.pt")


def test_a_second_change_enters_shared_values_once(tmp_path):
    # Two references at each of 45 levels: their 2^46 paths once took 23 GB.
    tree = changed(tmp_path, (0.054, "add", "shared"), (0.868, "add", "inf"))
    assert tree["a.shared"]["x"] is tree["a.shared"]["y"]
    assert sum(key.endswith(".inf") for _, key in nodes(tree)) == 1


def test_a_second_change_ends_on_a_cycle(tmp_path):
    tree = changed(tmp_path, (0.0, "odd", "cyclic"), (0.999, "odd", "zeros"))
    assert tree["a"]["self"] is tree["a"]
    assert sum(torch.equal(holder[key], torch.zeros_like(holder[key])) for holder, key in tensors(tree)) == 2


def tensors(tree):
    return [(holder, key) for holder, key in nodes(tree) if isinstance(holder[key], torch.Tensor)]


@pytest.mark.parametrize("second", ["zeros", "double", "sparse"])
def test_any_change_of_any_odd_tensor_stays_small(tmp_path, second):
    for first in ODD:
        changed(tmp_path, (0.0, "odd", first), (0.0, "odd", second), (0.0, "odd", second))


@pytest.mark.parametrize("depth", [1, 3, 6])
def test_places_are_those_of_the_values_without_sharing(depth):
    assert len(list(nodes(levels(depth)))) == 1 + 2 * depth
    assert [key for _, key in nodes({"a": [1, {"b": 2}], "c": 3})] == ["a", "c", 0, 1, "b"]


def test_a_try_that_takes_too_much_is_named_and_takes_no_more(monkeypatch):
    runner = Runner.__new__(Runner)
    monkeypatch.setattr(Runner, "_run", lambda _self, _tried, _bound: bytearray(2**40))
    with pytest.raises(MemoryError, match=r'1024 MiB.*"--odd"'):
        runner.run(Try("options", ("simulate", "--odd")))
    with bounded(ROOM), pytest.raises(MemoryError):
        bytearray(2 * ROOM)
    bytearray(2 * ROOM)
