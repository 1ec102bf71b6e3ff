"""BYOL and SimSiam: values and gradients against automatic differentiation, and their moments against their pairs."""

import itertools

import pytest
import torch

from dyncollapse import GaussianTask, PairMoments, Pairs, SelfDistillation, balanced_predictor, forward, gaussian_init
from dyncollapse.model.self_distillation import OnlineMoments, full_state

RUNS, N, DIM, OUT = (3,), 20, 5, 4
RATES = ((1.0, None), (2.5, None), (1.0, 0.7), (0.0, 3.0))


def setting(depth, generator, views, target_rate):
    """Weights, pairs and a state that are related by nothing."""
    weights = gaussian_init([DIM, *[6] * (depth - 1), OUT], generator, RUNS, 0.7)
    target = gaussian_init([DIM, *[6] * (depth - 1), OUT], generator, RUNS, 0.7) if target_rate else ()
    predictor = torch.randn(*RUNS, OUT, OUT, generator=generator, dtype=torch.float64)
    x = torch.randn(*RUNS, N, DIM, generator=generator, dtype=torch.float64)
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return weights, Pairs(x, x + noise, views), (predictor, *target)


def stopped_loss(weights, predictor, target, pairs, activation):
    """Sum over runs of the loss as its papers write it, with detach in place of the stop-gradient."""
    x, x_pos = pairs.anchor, pairs.positive

    def one(online, goal):
        gap = forward(weights, online, activation) @ predictor.mT - forward(target, goal, activation).detach()
        return gap.square().sum(-1).mean(-1) / 2

    return one(x, x_pos) if pairs.views == "one-sided" else (one(x, x_pos) + one(x_pos, x)) / 2


@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize(("depth", "rates"), [*itertools.product((1, 3), RATES)])
def test_gradient_is_that_behind_a_stop_gradient(generator, depth, views, activation, rates):
    objective = SelfDistillation(*rates, activation=activation)
    weights, pairs, state = setting(depth, generator, views, objective.target_rate)
    learnt = [p.clone().requires_grad_() for p in (*weights, state[0])]
    loss = stopped_loss(learnt[:-1], learnt[-1], state[1:] or learnt[:-1], pairs, activation)
    torch.testing.assert_close(objective.value(weights, pairs, state), loss.detach(), rtol=1e-13, atol=0)
    expected = [*torch.autograd.grad(loss.sum(), learnt)]
    expected[-1] = objective.predictor_rate * expected[-1]
    for found, reference in zip(objective.gradient(weights, pairs, state), expected, strict=True):
        torch.testing.assert_close(found, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
@pytest.mark.parametrize("target_rate", [None, 0.7])
def test_moments_are_all_that_a_linear_network_sees(generator, views, target_rate):
    objective = SelfDistillation(1.5, target_rate)
    weights, pairs, state = setting(2, generator, views, target_rate)
    moments = OnlineMoments.of_pairs(pairs, len(RUNS))
    torch.testing.assert_close(
        objective.moment_value(weights, moments, state), objective.value(weights, pairs, state), rtol=1e-12, atol=0
    )
    for found, reference in zip(
        objective.moment_gradient(weights, moments, state), objective.gradient(weights, pairs, state), strict=True
    ):
        torch.testing.assert_close(found, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_batches_in_front_of_the_runs_are_averaged(generator, activation):
    objective = SelfDistillation(activation=activation)
    weights, pairs, state = setting(2, generator, "two-sided", None)
    other = Pairs(pairs.positive.flip(-1), pairs.anchor, "two-sided")
    both = Pairs(torch.stack([pairs.anchor, other.anchor]), torch.stack([pairs.positive, other.positive]), "two-sided")
    alone = [objective.gradient(weights, one, state) for one in (pairs, other)]
    for found, a, b in zip(objective.gradient(weights, both, state), *alone, strict=True):
        torch.testing.assert_close(found, (a + b) / 2, rtol=1e-12, atol=1e-12)
    value = (objective.value(weights, pairs, state) + objective.value(weights, other, state)) / 2
    torch.testing.assert_close(objective.value(weights, both, state), value)


@pytest.mark.parametrize("target_rate", [None, 0.7])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_curvature_is_the_derivative_of_the_gradient(generator, depth, target_rate):
    objective = SelfDistillation(1.5, target_rate)
    weights, pairs, state = setting(depth, generator, "two-sided", target_rate)
    weights, state = tuple(w[0] for w in weights), tuple(p[0] for p in state)
    moments = OnlineMoments.of_pairs(Pairs(pairs.anchor[0], pairs.positive[0], "two-sided"), 0)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in (*weights, *state)]
    found = objective.moment_curvature(weights, moments, state)(direction)

    def gradient(*parameters):
        return objective.moment_gradient(parameters[:depth], moments, parameters[depth:])

    _, expected = torch.autograd.functional.jvp(gradient, (*weights, *state), tuple(direction))
    for one, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(one, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
def test_moments_of_a_task_are_those_of_its_pairs(views, generator):
    task = GaussianTask.block(3, 2, 0.7, views=views)
    exact, pairs = OnlineMoments.of_task(task), task.sample(200_000, generator)
    for one, reference in zip(OnlineMoments.of_pairs(pairs, 0), exact, strict=True):
        torch.testing.assert_close(one, reference, atol=0.03, rtol=0)  # four errors of a variance below 1.2
    measured = PairMoments.from_pairs(pairs.anchor, pairs.positive, views)
    centred = Pairs(pairs.anchor - measured.means[0], pairs.positive - measured.means[1], views)
    for one, reference in zip(OnlineMoments.of_task(measured), OnlineMoments.of_pairs(centred, 0), strict=True):
        symmetric = (reference + reference.mT) / 2
        torch.testing.assert_close(one, symmetric, atol=1e-4, rtol=0)  # the means differ by 0.002


def test_balanced_predictor_has_the_encoders_gram_matrix(generator):
    weights = gaussian_init([5, 3, 6], generator, RUNS, 1.0)
    predictor = balanced_predictor(weights, 2.5)
    torch.testing.assert_close(predictor, predictor.mT)
    torch.testing.assert_close(predictor.mT @ predictor, 2.5 * weights[-1] @ weights[-1].mT)
    assert torch.linalg.eigvalsh(predictor).min() > -1e-12


BAD = (
    ({"predictor_rate": -1}, "predictor_rate is -1; it must be finite and at least 0"),
    ({"predictor_rate": None}, "predictor_rate is None"),
    ({"target_rate": 0}, "target_rate is 0; it must be finite and above 0, or None for SimSiam"),
    ({"target_rate": float("nan")}, "target_rate is nan"),
    ({"target_rate": True}, "target_rate is True"),
    ({"activation": "tanh"}, "activation is 'tanh'"),
)


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_refuses_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        SelfDistillation(**settings)


def test_refuses_a_state_that_does_not_fit(generator):
    weights, _, (predictor, *target) = setting(2, generator, "two-sided", 1.0)
    simsiam, byol = SelfDistillation(), SelfDistillation(target_rate=1.0)
    for objective, given, message in (
        (simsiam, (None, ()), "needs the predictor it starts from"),
        (simsiam, (predictor, target), "SimSiam has none of its own"),
        (simsiam, (predictor[0], ()), "they must be"),
        (simsiam, (predictor.float(), ()), "they must be"),
        (simsiam, (predictor * torch.nan, ()), "NaN or infinity"),
        (byol, (predictor, target[:1]), "they must be"),
    ):
        with pytest.raises(ValueError, match=message):
            full_state(objective, weights, *given)
    with pytest.raises(ValueError, match="without biases"):
        full_state(simsiam, weights, predictor, (), [torch.zeros(3, 6), torch.zeros(3, 4)])


def test_byols_target_starts_as_a_copy(generator):
    weights, _, (predictor, *target) = setting(2, generator, "two-sided", 1.0)
    copied = full_state(SelfDistillation(target_rate=1.0), weights, predictor, ())
    assert all(map(torch.equal, copied, (predictor, *weights)))
    given = full_state(SelfDistillation(target_rate=1.0), weights, predictor, target)
    assert all(map(torch.equal, given, (predictor, *target)))
