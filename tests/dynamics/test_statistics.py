"""Statistics recorded along a path: their values, shapes and files."""

import numpy as np
import pytest
import torch
from helpers import flow as flow_helpers

from dyncollapse import Interrupted, Trajectory, effective_rank, end_to_end, singular_values, train
from dyncollapse.dynamics.statistics import Recorder, stacked

ASKED = {
    "norm": lambda weights: weights[0].norm(dim=(-2, -1)),
    "values": lambda weights: singular_values(end_to_end(weights)),
}


def together(weights):
    return {name: function(weights) for name, function in ASKED.items()}


@pytest.mark.parametrize("record", [ASKED, together], ids=["a table of functions", "a function of a table"])
@pytest.mark.parametrize("runs", [(), (2,), (2, 3)])
def test_statistics_are_those_of_the_recorded_weights(record, runs, generator):
    weights, pairs = flow_helpers.draw(generator, 2, n=8, runs=runs)
    path = train(weights, pairs, lr=0.1, steps=30, records=8, record=record)
    assert path.statistics.keys() == ASKED.keys()
    expected = path.weights[0].norm(dim=(-2, -1))
    torch.testing.assert_close(path.statistics["norm"], expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(path.statistics["values"], path.singular_values, rtol=1e-12, atol=1e-14)
    assert not torch.equal(path.statistics["norm"][0], path.statistics["norm"][-1])
    assert train(weights, pairs, lr=0.1, steps=3).statistics == {}


def test_statistics_are_saved_with_the_record(generator, tmp_path):
    weights, pairs = flow_helpers.draw(generator, n=8, runs=(2,))
    asked = ASKED | {"steps so far": lambda _: np.array([1, 2]), "bias_1": lambda _: torch.zeros(2)}
    path = train(weights, pairs, lr=0.1, steps=5, record=asked)
    path.save(tmp_path / "path.npz")
    again = Trajectory.load(tmp_path / "path.npz")
    assert again.statistics.keys() == asked.keys()
    assert again.biases == ()
    assert all(torch.equal(values, path.statistics[name]) for name, values in again.statistics.items())


def test_a_file_with_statistics_of_other_moments_is_refused(generator, tmp_path):
    weights, pairs = flow_helpers.draw(generator, n=8)
    path = train(weights, pairs, lr=0.1, steps=5)
    path.statistics["short"] = torch.zeros(2)
    path.save(tmp_path / "path.npz")
    with pytest.raises(ValueError, match="its statistics are not one per moment"):
        Trajectory.load(tmp_path / "path.npz")


def test_functions_of_the_package_and_numbers_are_recorded(generator):
    weights, pairs = flow_helpers.draw(generator, n=8)
    record = {
        "rank": lambda weights: effective_rank(singular_values(end_to_end(weights))),
        "number": lambda weights: float(weights[0][0, 0]),
    }
    path = train(weights, pairs, lr=0.1, steps=5, record=record)
    assert path.statistics["rank"].shape == path.time.shape
    assert path.statistics["number"].tolist() == path.weights[0][:, 0, 0].tolist()


def test_what_a_function_does_to_the_weights_is_not_recorded(generator):
    weights, pairs = flow_helpers.draw(generator, n=8)
    plain = train(weights, pairs, lr=0.1, steps=5)
    path = train(weights, pairs, lr=0.1, steps=5, record={"zeroed": lambda weights: weights[0].zero_().sum()})
    assert torch.equal(path.product, plain.product)


def test_an_interrupted_training_keeps_its_statistics(generator):
    weights, pairs = flow_helpers.draw(generator, n=8)

    def stop(step, _):
        if step >= 20:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        train(weights, pairs, lr=0.1, steps=100, records=16, progress=stop, record=ASKED)
    partial = stopped.value.trajectory
    assert len(partial.statistics["norm"]) == len(partial.time) > 0


class Growing:
    """A statistic that changes its shape at its second moment."""

    def __init__(self, second):
        self.made, self.second = 0, second

    def __call__(self, _):
        self.made += 1
        return {"one": torch.zeros(2, 3)} if self.made == 1 else self.second


UNUSABLE = {
    "a number": (3, "record is of type int; give a function of the weights that returns a dict of tensors, or a dict"),
    "a table of numbers": ({"one": 3}, "record is of type dict; give a function of the weights"),
    "a function of a tensor": (
        lambda weights: weights[0],
        "record returned a Tensor; it must return a dict of tensors",
    ),
    "no runs": (
        lambda _: {"one": torch.zeros(3)},
        r"the statistic one has shape \(3,\); it must begin with the runs, \(2,\)",
    ),
    "text": (lambda _: {"one": "text"}, "the statistic one is str"),
    "complex": (lambda _: {"one": 1j * torch.ones(2)}, "the statistic one is complex"),
    "a name of a number": (lambda _: {3: torch.zeros(2)}, "'3' is no name for a statistic; give 1 to 100 printable"),
    "a path": (lambda _: {"../one": torch.zeros(2)}, "'../one' is no name for a statistic"),
    "another shape": (
        Growing({"one": torch.zeros(2)}),
        r"record returned one \(2,\) of torch.float32, and one \(2, 3\)",
    ),
    "another type": (Growing({"one": torch.zeros(2, 3).double()}), r"one \(2, 3\) of torch.float64, and one \(2, 3\)"),
    "another name": (
        Growing({"two": torch.zeros(2, 3)}),
        r"returned two \(2, 3\) .* names, shapes and types must stay",
    ),
    "nothing more": (Growing({}), r"record returned nothing, and one \(2, 3\)"),
}


@pytest.mark.parametrize(("record", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_statistics_are_refused_in_one_line(record, message, generator):
    weights, pairs = flow_helpers.draw(generator, n=8, runs=(2,))
    if isinstance(record, Growing):
        record.made = 0
    with pytest.raises(ValueError, match=message) as refused:
        train(weights, pairs, lr=0.1, steps=5, record=record)
    assert "\n" not in str(refused.value)


def test_no_record_is_nothing():
    recorder = Recorder(None, ())
    assert recorder.at((torch.eye(2),)) == {}
    assert stacked([{}, {}]) == stacked([]) == {}
