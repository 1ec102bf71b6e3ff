"""SGD and flows of BYOL and SimSiam: limits, order of convergence, runs, records and refusals."""

import pytest
import torch

from dyncollapse import (
    GaussianTask,
    Objective,
    PairMoments,
    Pairs,
    SelfDistillation,
    Trajectory,
    balanced_predictor,
    gaussian_init,
    join_streams,
    order_of_convergence,
    population_flow,
    relative_distance,
    sample_flow,
    train,
)

TASK = GaussianTask.block(4, 2, 1.0, views="two-sided")
SIMSIAM, BYOL = SelfDistillation(1.5), SelfDistillation(1.5, 0.5)


def start(generator, depth=1, runs=(), scale=0.5):
    weights = gaussian_init([4] * (depth + 1), generator, runs, scale)
    return weights, balanced_predictor(weights, 1.5)


def same(a, b):
    pairs = [*zip(a.weights, b.weights, strict=True), (a.predictor, b.predictor), *zip(a.target, b.target, strict=True)]
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("objective", [SIMSIAM, BYOL])
@pytest.mark.parametrize("depth", [1, 2])
def test_sgd_converges_to_the_flow_at_first_order(generator, depth, objective):
    weights, predictor = start(generator, depth)
    pairs, rates, distances = TASK.sample(64, generator), [2.0**-e for e in (6, 7, 8)], []
    settings = {"objective": objective, "predictor": predictor, "weight_decay": 0.02}
    flow = sample_flow(weights, pairs, 4.0, rtol=1e-11, **settings)
    for lr in rates:
        path = train(weights, pairs, lr=lr, steps=round(4 / lr), records=2, **settings)
        distances.append(float(relative_distance(path, flow)[1][-1]))
        for one, other in zip((path.predictor, *path.target), (flow.predictor, *flow.target), strict=True):
            assert float((one[-1] - other[-1]).norm()) < 5 * lr
    assert order_of_convergence(rates, distances) == pytest.approx(1, abs=0.15)


def test_momentum_follows_the_same_flow(generator):
    weights, predictor = start(generator)
    pairs = TASK.sample(64, generator)
    settings = {"objective": BYOL, "predictor": predictor, "weight_decay": 0.02}
    flow = sample_flow(weights, pairs, 5.0, **settings)
    path = train(weights, pairs, lr=0.0001, momentum=0.9, steps=5000, records=2, **settings)
    assert float(path.time[-1]) == pytest.approx(5.0)
    assert float((path.product[-1] - flow.product[-1]).norm()) < 0.02
    assert float((path.target[0][-1] - flow.target[0][-1]).norm()) < 0.02


def test_a_fast_target_is_the_encoder_itself(generator):
    weights, predictor = start(generator)
    ends = [
        population_flow(weights, TASK, 3.0, objective=SelfDistillation(1.5, rate), predictor=predictor, rtol=1e-8)
        for rate in (None, 1e2, 1e3, 1e4)
    ]
    gaps = [float((end.product[-1] - ends[0].product[-1]).norm()) for end in ends[1:]]
    assert order_of_convergence([1e-2, 1e-3, 1e-4], gaps) == pytest.approx(1, abs=0.05)


def test_sgd_without_target_momentum_is_simsiam_exactly(generator):
    weights, predictor = start(generator, 2, (3,))
    stream = TASK.stream(16, generator, (3,))
    simsiam = train(weights, stream, lr=0.1, steps=40, objective=SIMSIAM, predictor=predictor)
    byol = train(weights, stream, lr=0.1, steps=40, objective=SelfDistillation(1.5, 10.0), predictor=predictor)
    assert all(map(torch.equal, simsiam.weights, byol.weights))
    assert all(map(torch.equal, byol.weights, byol.target))
    assert not torch.equal(simsiam.weights[0][0], simsiam.weights[0][-1])


def test_target_is_the_moving_average_of_the_encoder(generator):
    weights, predictor = start(generator)
    path = train(weights, TASK.stream(16, generator), lr=0.1, steps=20, records=64, objective=BYOL, predictor=predictor)
    average = path.weights[0][0]
    for step in range(1, 21):
        average = 0.95 * average + 0.05 * path.weights[0][step]  # m = 1 - 0.5 * 0.1
        torch.testing.assert_close(path.target[0][step], average)


@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
@pytest.mark.parametrize("objective", [SIMSIAM, BYOL])
def test_population_flow_is_exact_for_any_distribution(generator, views, objective):
    # Binary pixels and their negatives, so that the means vanish; two-sided, also with both views exchanged.
    x = torch.randint(0, 2, (50, 4), generator=generator).double()
    masks = torch.randint(0, 2, (50, 4), generator=generator).double()
    anchor, positive = torch.cat([x, -x]), torch.cat([x * masks, -x * masks])
    if views == "two-sided":
        anchor, positive = torch.cat([anchor, positive]), torch.cat([positive, anchor])
    weights, predictor = start(generator, 2)
    settings = {"objective": objective, "predictor": predictor, "weight_decay": 0.01, "rtol": 1e-10}
    sample = sample_flow(weights, Pairs(anchor, positive, views), [1.0, 5.0], **settings)
    moments = PairMoments.from_pairs(anchor, positive, views)
    population = population_flow(weights, moments, [1.0, 5.0], **settings)
    if views == "one-sided":  # G is the symmetric part; with independent masks the cross-covariance is not symmetric
        cross = positive.T @ anchor / len(anchor)
        assert float((cross - cross.T).abs().max()) > 1e-3
    else:
        torch.testing.assert_close(population.product, sample.product, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(population.predictor, sample.predictor, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(population.loss, sample.loss, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("objective", [SIMSIAM, BYOL])
def test_solvers_agree(generator, objective):
    weights, predictor = start(generator, 3, (2,), 0.6)
    settings = {"objective": objective, "predictor": predictor, "weight_decay": 0.02, "rtol": 1e-8}
    explicit = population_flow(weights, TASK, 20.0, method="DOP853", **settings)
    for method in ("CVODE", "LSODA"):
        path = population_flow(weights, TASK, 20.0, method=method, **settings)
        torch.testing.assert_close(path.product, explicit.product, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(path.predictor, explicit.predictor, rtol=1e-6, atol=1e-7)
    assert path.predictor.shape == (1, 2, 4, 4)


def test_sgd_averages_to_the_population_flow(generator):
    weights, predictor = start(generator, 1, (64,))
    weights, predictor = tuple(w[:1].expand_as(w) for w in weights), predictor[:1].expand_as(predictor)
    stream = TASK.stream(8, generator, (64,))
    path = train(weights, stream, lr=0.02, steps=100, objective=BYOL, predictor=predictor)
    flow = population_flow(tuple(w[0] for w in weights), TASK, 2.0, objective=BYOL, predictor=predictor[0])
    mean, error = path.product[-1].mean(0), path.product[-1].std(0) / 8
    assert ((mean - flow.product[-1]).abs() < 4 * error + 0.02).all()


@pytest.mark.parametrize("objective", [SelfDistillation(activation="relu"), SelfDistillation(1.0, 1.0, "relu")])
def test_relu_networks(generator, objective):
    weights, predictor = start(generator, 2)
    pairs = TASK.sample(32, generator)
    flow = sample_flow(weights, pairs, 2.0, objective=objective, predictor=predictor)
    path = train(weights, pairs, lr=0.002, steps=1000, records=2, objective=objective, predictor=predictor)
    for one, other in zip((*path.weights, path.predictor), (*flow.weights, flow.predictor), strict=True):
        assert float((one[-1] - other[-1]).norm() / other[-1].norm()) < 0.01
    with pytest.raises(ValueError, match="is for linear layers, not for relu"):
        population_flow(weights, TASK, 1.0, objective=objective, predictor=predictor)


@pytest.mark.parametrize("objective", [SIMSIAM, BYOL])
def test_paths_restart_midway(generator, objective):
    weights, predictor = start(generator, 2)
    whole = population_flow(weights, TASK, [2.0, 5.0], objective=objective, predictor=predictor, rtol=1e-10)
    state = {"predictor": whole.predictor[0], "target": tuple(w[0] for w in whole.target)}
    rest = population_flow(tuple(w[0] for w in whole.weights), TASK, 3.0, objective=objective, rtol=1e-10, **state)
    for one, other in zip((*rest.weights, rest.predictor), (*whole.weights, whole.predictor), strict=True):
        torch.testing.assert_close(one[-1], other[-1], rtol=1e-7, atol=1e-8)


def test_runs_of_an_ensemble_are_what_they_are_alone(generator):
    streams = [TASK.stream(16, torch.Generator().manual_seed(seed), (2,)) for seed in (0, 1)]
    weights, predictor = start(generator, 2, (4,))
    settings = {"lr": 0.1, "steps": 30, "objective": BYOL, "weight_decay": 0.01}
    together = train(weights, join_streams(streams), predictor=predictor, **settings)
    for rows, stream in ((slice(0, 2), streams[0]), (slice(2, 4), streams[1])):
        alone = train(tuple(w[rows] for w in weights), stream, predictor=predictor[rows], **settings)
        torch.testing.assert_close(together.predictor[:, rows], alone.predictor, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(together.target[1][:, rows], alone.target[1], rtol=1e-12, atol=1e-12)


def test_weight_decay_leaves_the_target_alone(generator):
    weights, predictor = start(generator)
    slow = SelfDistillation(1.0, 1e-9)
    settings = {"objective": slow, "predictor": predictor, "weight_decay": 0.5}
    for path in (
        train(weights, TASK.stream(16, generator), lr=0.1, steps=50, **settings),
        population_flow(weights, TASK, 5.0, **settings),
    ):
        torch.testing.assert_close(path.target[0][-1], weights[0], rtol=1e-6, atol=1e-6)
        assert float(path.weights[0][-1].norm()) < 0.9 * float(weights[0].norm())


@pytest.mark.parametrize("objective", [SIMSIAM, BYOL])
def test_records_are_saved_with_their_state(generator, tmp_path, objective):
    weights, predictor = start(generator, 2, (2,))
    path = train(weights, TASK.stream(16, generator, (2,)), lr=0.1, steps=9, objective=objective, predictor=predictor)
    path.save(tmp_path / "path.npz")
    again = Trajectory.load(tmp_path / "path.npz")
    assert same(path, again)
    assert (again.biases, len(again.target)) == ((), 2 if objective is BYOL else 0)


def test_optimisers_step_encoder_and_predictor(generator):
    weights, predictor = start(generator, 2)
    path = train(
        weights,
        TASK.stream(16, generator),
        steps=50,
        optimiser=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        objective=SelfDistillation(1.0, 0.1),
        predictor=predictor,
    )
    assert path.meta["optimiser"] == "Adam"
    assert not torch.equal(path.predictor[0], path.predictor[-1])
    torch.testing.assert_close(path.target[0][1], 0.9 * weights[0] + 0.1 * path.weights[0][1])  # a share per step


def test_refuses_what_does_not_fit_together(generator):
    weights, predictor = start(generator)
    stream, settings = TASK.stream(16, generator), {"lr": 0.1, "steps": 2}
    for given, message in (
        ({"objective": SIMSIAM}, "needs the predictor it starts from"),
        ({"predictor": predictor}, "only SelfDistillation has one"),
        ({"objective": Objective("dot"), "target": weights}, "target is given"),
        ({"objective": SIMSIAM, "predictor": predictor, "biases": [torch.zeros(4).double()]}, "without biases"),
        ({"objective": SelfDistillation(1.0, 11.0), "predictor": predictor}, "it must be at most 10"),
    ):
        with pytest.raises(ValueError, match=message):
            train(weights, stream, **settings, **given)
