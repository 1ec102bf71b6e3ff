import math

import pytest
import torch
from helpers.flow import moved
from helpers.reference import VIEWS, normal, rotation

from dyncollapse import (
    GaussianTask,
    Objective,
    gaussian_init,
    imbalance,
    imbalance_drift,
    population_flow,
    sample_flow,
    train,
)


def test_imbalance_is_its_definition(generator):
    w1, w2 = normal(generator, 2, 3, 4), normal(generator, 2, 5, 3)
    for run in range(2):
        grams = [sum(torch.outer(c, c) for c in columns) for columns in (w1[run].T, w2[run])]
        torch.testing.assert_close(imbalance(w1, w2)[run], grams[0] - grams[1], rtol=1e-12, atol=1e-13)


def test_imbalance_turns_with_the_hidden_layer_and_with_nothing_else(generator):
    w1, w2, q = normal(generator, 3, 4), normal(generator, 5, 3), rotation(generator, 3)
    c, a, b = imbalance(w1, w2), rotation(generator, 4), rotation(generator, 5)
    torch.testing.assert_close(imbalance(q @ w1 @ a, b @ w2 @ q.T), q @ c @ q.T, rtol=1e-12, atol=1e-12)


def test_drift_is_relative_to_the_largest_gram_matrices():
    eye = torch.eye(4, dtype=torch.float64)
    w1, w2 = torch.stack([eye, 2 * eye]), torch.stack([eye, eye])
    # C goes from 0 to 3 I, |3 I| = 6; Gram norms grow to |4 I| + |I| = 10.
    assert imbalance_drift((w1, w2)) == pytest.approx(0.6)
    assert imbalance_drift((7 * w1, 7 * w2)) == pytest.approx(0.6)


def test_drift_reports_the_worst_run_and_the_worst_pair():
    still = torch.eye(2, dtype=torch.float64).expand(3, 2, 2, 2)
    moving = still.clone()
    moving[2, 1] *= 2
    assert imbalance_drift((still, still)) == 0
    # The moving run goes from C = 0 to 3 I at Gram norms 4 and 1, the other stays.
    assert imbalance_drift((moving, still)) == pytest.approx(0.6)
    assert imbalance_drift((still, still, moving)) == pytest.approx(0.6)


def test_drift_of_one_layer_and_of_nothing():
    zero = torch.zeros(3, 2, 2, dtype=torch.float64)
    assert imbalance_drift((zero,)) is None
    assert imbalance_drift((zero, zero)) == 0


@pytest.mark.parametrize("depth", [2, 3])
def test_sgd_does_not_conserve_the_imbalance(depth, generator):
    weights, task = gaussian_init([4] * (depth + 1), generator, scale=0.5), GaussianTask.block(4, 2, 0.7)
    stream = task.stream(8, generator)
    assert train(weights, stream, lr=0.1, steps=200).imbalance_drift > 1e-3
    # A step changes C by lr^2, a fixed time holds 1/lr steps: the drift is of first order in lr on a fixed batch.
    pairs = task.sample(8, generator)
    fast, slow = (train(weights, pairs, lr=lr, steps=round(2 / lr)).imbalance_drift for lr in (2**-4, 2**-8))
    assert 8 < fast / slow < 32
    assert sample_flow(weights, pairs, [0.0, 2.0]).imbalance_drift < slow / 100


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_flow_conserves_the_imbalance(depth, views, generator):
    weights, task = gaussian_init([4] * (depth + 1), generator, scale=0.6), GaussianTask.block(4, 2, 0.7, views=views)
    times = [0.0, 1.0, 2.0]
    for path in (sample_flow(weights, task.sample(10, generator), times), population_flow(weights, task, times)):
        assert moved(path) > 0.1
        # Conserved exactly; the solver's rtol of 1e-8 per step leaves two digits of room.
        assert path.imbalance_drift < 1e-6
    assert float(imbalance(weights[0], weights[1]).norm()) > 0.1


@pytest.mark.parametrize("loss", ["infonce", "dot"])
def test_weight_decay_shrinks_the_imbalance_exponentially(loss, generator):
    weights, pairs = gaussian_init([4] * 4, generator, scale=0.5), GaussianTask.block(4, 2, 0.7).sample(10, generator)
    decay, times = 0.2, torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    objective = Objective(loss, 1.0 if loss == "dot" else None)
    path = sample_flow(weights, pairs, times, objective=objective, weight_decay=decay)
    for w1, w2 in zip(path.weights[:-1], path.weights[1:], strict=True):
        c = imbalance(w1, w2)
        expected = torch.exp(-2 * decay * times).view(-1, 1, 1) * c[0]
        torch.testing.assert_close(c, expected, rtol=0, atol=1e-6 * float(c[0].norm()))


def test_weights_that_are_not_numbers_certify_nothing():
    ones = torch.ones(2, 2, 2, dtype=torch.float64)
    assert math.isnan(imbalance_drift((ones, ones * float("nan"))))
    assert imbalance_drift((0 * ones, 0 * ones)) == 0
