"""Making a try stays small, whatever an earlier step has left in its file."""

import os
import time
from contextlib import suppress

import pytest
import torch

from fuzz.make import DEEDS, change
from fuzz.runner import Endless, Runner, Try, bounded, timed
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


def test_a_copy_of_a_folder_with_a_link_to_a_folder_around_it_ends(tmp_path):
    (tmp_path / "images" / "train" / "cat").mkdir(parents=True)
    with timed(SECONDS):
        change(tmp_path, ("link", "images/train/cat/.ipynb_checkpoints", "../../.."))
        change(tmp_path, ("copy", "images/train", "cifar-10-batches-py"))
    copied = tmp_path / "images" / "cifar-10-batches-py" / "cat" / ".ipynb_checkpoints"
    assert os.readlink(copied) == "../../.."


@pytest.mark.parametrize("depth", [1, 3, 6])
def test_places_are_those_of_the_values_without_sharing(depth):
    assert len(list(nodes(levels(depth)))) == 1 + 2 * depth
    assert [key for _, key in nodes({"a": [1, {"b": 2}], "c": 3})] == ["a", "c", 0, 1, "b"]


def test_a_try_that_takes_too_much_is_named_and_takes_no_more(monkeypatch):
    runner = Runner.__new__(Runner)
    monkeypatch.setattr(Runner, "run_freely", lambda _self, _tried, _bound: bytearray(2**40))
    with pytest.raises(MemoryError, match=r'1024 MiB.*"--odd"'):
        runner.run(Try("options", ("simulate", "--odd")))
    much = 2**32  # more than the C library can have kept of what others freed, and no page of it is touched
    with bounded(ROOM), pytest.raises(MemoryError):
        bytearray(much)
    bytearray(much)


def test_a_try_that_takes_too_long_to_make_is_named(monkeypatch, tmp_path):
    runner = Runner.__new__(Runner)
    runner.place, runner.world, runner.count = tmp_path, tmp_path, 0
    monkeypatch.setattr("fuzz.runner.MAKING", 0.1)
    monkeypatch.setitem(DEEDS, "empty", lambda _path: endless())
    with pytest.raises(Endless, match=r"more than 0 s: .*simulate"):
        runner.run(Try("options", ("simulate",), steps=(("empty", "a"),)))
    assert not list(tmp_path.iterdir())


def endless():
    while True:
        with suppress(Exception):
            time.sleep(0.01)
