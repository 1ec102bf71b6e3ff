"""Linear encoders trained by SGD on the pairs that were measured end where they were predicted to."""

import json
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from dyncollapse.bridge import PredictOptions, open_data, predict
from dyncollapse.bridge.prediction.directions import find_directions, measure_pairs
from dyncollapse.bridge.prediction.pipelines import open_pipeline
from dyncollapse.bridge.prediction.prediction import LinearEncoder, predict_loss
from dyncollapse.bridge.prediction.training import FixedBatches, agreement_of, projected_pairs, train_linear_encoder
from dyncollapse.bridge.prediction.views import ViewPairs
from dyncollapse.bridge.prediction.wording import agreement_sentence
from dyncollapse.commands.main import main


@pytest.fixture(scope="module")
def digits():
    """Eight principal directions of digits under their augmentation, and all pairs along them."""
    pairs = ViewPairs(open_data("digits").train, open_pipeline("digits", 1), size=8)
    found = find_directions(measure_pairs(pairs, "two-sided", len(pairs)), 8, alike=True)
    return found, projected_pairs(pairs, found)


def test_the_pairs_are_those_that_were_measured(digits):
    found, pairs = digits
    moments = found.measured.moments
    cov = (pairs.first.T @ pairs.first + pairs.second.T @ pairs.second) / (2 * len(pairs.first))
    cross = (pairs.first.T @ pairs.second + pairs.second.T @ pairs.first) / (2 * len(pairs.first))
    torch.testing.assert_close(cov, moments.view_cov)
    torch.testing.assert_close(cross, moments.shared)


@pytest.mark.parametrize(
    ("loss", "batch_size", "error", "order"),
    # vcreg and barlow see covariances of the batch, with its sampling error; infonce has a limit for Gaussian views;
    # byol is predicted as if its directions were orthogonal.
    [
        ("spectral", 256, 0.01, 0.9),
        ("vcreg", 1024, 0.02, 0.9),
        ("barlow", 1024, 0.03, 0.9),
        ("infonce", 128, 0.3, 0.7),
        ("byol", 256, 0.1, 0.3),
    ],
)
def test_training_ends_as_predicted(loss, batch_size, error, order, digits):
    found, pairs = digits
    encoder = LinearEncoder(steps=1500, init_scale=0.05 if loss == "byol" else 1e-3)  # byol leaves zero slowly
    expected, trained = train_linear_encoder(found, pairs, loss, encoder, batch_size=batch_size, alike=True)
    agreement = trained.agreement
    assert agreement["compared"] >= 4
    assert abs(agreement["empty"] - agreement["empty_trained"]) <= 2
    assert agreement["error"] < error
    assert agreement["order"] > order
    learnt = torch.isfinite(trained.learning_steps) & (expected.learning_steps < 750) & (expected.learning_steps > 0)
    ratio = trained.learning_steps[learnt] / expected.learning_steps[learnt]
    assert 0.5 < float(ratio.median()) < 2.5


def test_weight_decay_empties_the_directions_that_it_was_predicted_to(digits):
    found, pairs = digits
    encoder = LinearEncoder(steps=1500, weight_decay=4.0, init_scale=0.01)
    expected, trained = train_linear_encoder(found, pairs, "spectral", encoder, batch_size=256, alike=True)
    assert 0 < expected.empty == trained.agreement["empty_trained"] < 8
    assert trained.agreement["error"] < 0.02
    assert trained.agreement["compared"] == 4  # the others have less than a tenth of the largest variance


def test_a_direction_that_starts_above_its_rest_value_is_not_compared(digits):
    found, _ = digits
    some = predict_loss(found, "byol", LinearEncoder(), alike=True)
    # One direction is learnt too late, one starts far above what its sampled correlation would keep, one is in between.
    expected = replace(some, rest=torch.tensor([1.0, 1e-8, 1e-8]), learning_steps=torch.tensor([1900.0, 0.0, 500.0]))
    agreement = agreement_of(expected, torch.full((3,), 0.01), torch.full((3,), torch.inf), 2000)
    assert agreement == {"error": None, "compared": 0.0, "order": None}
    early = replace(expected, learning_steps=torch.tensor([900.0, 0.0, 500.0]))
    assert agreement_of(early, torch.full((3,), 0.9), torch.full((3,), 800.0), 2000) == {
        "error": pytest.approx(0.1),
        "compared": 1.0,
        "order": None,
    }


@pytest.mark.parametrize("loss", ["spectral", "byol"])
def test_nothing_is_compared_where_nothing_is_learnt_in_time(loss, digits):
    found, pairs = digits
    encoder = LinearEncoder(steps=10)
    expected, trained = train_linear_encoder(found, pairs, loss, encoder, batch_size=256, alike=True)
    assert expected.learnt == 0
    assert trained.agreement["empty"] is expected.empty is None
    assert agreement_sentence(loss, trained.agreement) == (
        f"Trained by SGD, {loss}: nothing is compared, because no direction is predicted to be learnt in time."
    )


def test_batches_are_the_same_at_each_iteration_and_hold_each_pair_once():
    rows = torch.arange(10.0).unsqueeze(1)
    batches = FixedBatches(rows, -rows, "two-sided", 5, seed=3)
    once = [batch.anchor for batch, _ in zip(batches, range(4), strict=False)]
    again = [batch.anchor for batch, _ in zip(batches, range(4), strict=False)]
    assert all(map(torch.equal, once, again))
    assert torch.cat(once[:2]).flatten().sort().values.tolist() == list(range(10))
    assert not torch.equal(once[0], once[2])


@pytest.mark.parametrize(("weight_decay", "decayed"), [(0.0, 0), (10.0, 8)])
def test_weight_decay_kills_byol(weight_decay, decayed, digits):
    found, pairs = digits
    encoder = LinearEncoder(steps=400, weight_decay=weight_decay, init_scale=0.05)
    expected, trained = train_linear_encoder(found, pairs, "byol", encoder, batch_size=256, alike=True)
    assert expected.fates.counts()["decayed"] == decayed
    assert (trained.agreement["empty_trained"] == 8) == bool(decayed)


def test_one_sided_byol_follows_a_correlation_above_one():
    # The other view has twice the anchor's spread: g = 2 s_e, and P rests at g / s_e = 2 in balance.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.2, 1.0, 0.8]).double()
    x_pos = 2 * x + 0.3 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    found = find_directions(measure_pairs([(x, x_pos)], "one-sided", 4000), 3)
    encoder = LinearEncoder(steps=1500, init_scale=0.05)
    expected, trained = train_linear_encoder(found, found.measured, "byol", encoder, batch_size=4000)
    assert float(expected.rest.sum()) == pytest.approx(4 * float(found.measured.moments.view_cov.trace()), rel=0.02)
    assert trained.agreement["compared"] >= 2
    assert trained.agreement["error"] < 0.02


def test_python_tells_of_a_loss_that_diverged_and_returns_the_rest():
    said: list[str] = []
    options = PredictOptions(
        "digits", images=200, directions=6, loss=("spectral", "byol"), train=True, steps=50, lr=0.5
    )
    prediction = predict(options, tell=said.append)
    assert [one.loss for one in prediction.trained] == ["byol"]
    assert said == [f"spectral: {prediction.untrained['spectral']}"]
    assert "SGD diverged" in said[0]


def test_python_predicts_what_the_command_does():
    options = PredictOptions("digits", images=200, directions=6, loss=("spectral",), train=True, steps=50)
    seen, told = set(), []

    @contextmanager
    def progress(names):
        seen.update(names)
        yield lambda name, _done, _total: told.append(name)

    prediction = predict(options, progress=progress)
    assert seen == set(told) == {"views", "directions", "operations", "sgd spectral"}
    given = [
        "--data",
        "digits",
        "--images",
        "200",
        "--directions",
        "6",
        "--loss",
        "spectral",
        "--train",
        "--steps",
        "50",
        "--threads",
        "1",
    ]
    result = CliRunner().invoke(main, ["predict", *given, "--json"])
    found = json.loads(result.stdout)
    assert found["rho"] == prediction.found.rho.tolist()
    assert found["losses"]["spectral"]["rest"] == prediction.losses["spectral"].rest.tolist()
    assert found["trained"]["spectral"]["singular_values"] == prediction.trained[0].singular_values.tolist()
