import pytest
import torch
from helpers.reference import EPS, normal, rotation

from dyncollapse import (
    GaussianTask,
    Objective,
    alignment_matrix,
    alignment_velocity,
    layer_gradients,
    layer_value_velocities,
    order_of_convergence,
    population_flow,
    population_force,
    singular_value_velocities,
    singular_values,
    singular_vector_velocities,
)

# Between these steps the h^2 of a central difference stands far above its round-off, EPS / h.
STEPS = [2.0**-e for e in range(7, 12)]
TASK = GaussianTask(
    torch.diag(torch.tensor([2.0, 1.0, 0.5, 0.3], dtype=torch.float64)),
    torch.diag(torch.tensor([0.1, 0.5, 0.2, 0.4], dtype=torch.float64)),
)


def separated(generator, *runs):
    """Layers (*runs, 4, 4) with singular values near 3, 2, 1.2 and 0.5 and any vectors."""
    u, v = (torch.linalg.qr(normal(generator, *runs, 4, 4))[0] for _ in range(2))
    return u * torch.tensor([3.0, 2.0, 1.2, 0.5], dtype=torch.float64) @ v.mT


def frames(w, middle):
    """U, s and V of w, every pair of vectors turned to the sign it has in `middle`."""
    u, s, vh = torch.linalg.svd(w)
    same = torch.sign((u * middle[0]).sum(-2))
    return u * same.unsqueeze(-2), s, vh.mT * same.unsqueeze(-2)


def path_and_velocity(generator, *runs):
    """A smooth path W(t), not a straight line, and W'(0)."""
    start, linear, square, cube = separated(generator, *runs), *(normal(generator, *runs, 4, 4) for _ in range(3))
    return lambda t: start + t * linear + t**2 * square + t**3 * cube, linear


def central(observe, h):
    return [(after - before) / (2 * h) for after, before in zip(observe(h), observe(-h), strict=True)]


def assert_second_order(observe, velocities):
    """Central differences of what is observed converge to the velocities with the square of the step."""
    errors = [[] for _ in velocities]
    for h in STEPS:
        for error, difference, velocity in zip(errors, central(observe, h), velocities, strict=True):
            error.append(float((difference - velocity).norm()))
    for error, velocity in zip(errors, velocities, strict=True):
        assert float(velocity.norm()) > 1e-2
        assert abs(order_of_convergence(STEPS, error) - 2) < 0.15
        # A wrong velocity would leave an error of its own size at any step.
        assert error[-1] < 1e-3 * float(velocity.norm())


def flow(generator, *runs):
    """Two layers, the pull Y = P X of the population force at them, and their velocities."""
    layers = (separated(generator, *runs), separated(generator, *runs))
    product = layers[1] @ layers[0]
    pull = product @ population_force(product, TASK, Objective())
    return layers, pull, layer_gradients(layers, pull)


@pytest.mark.parametrize("runs", [(), (2,)])
def test_lemmas_4_and_5_are_the_velocities_of_a_decomposition(runs, generator):
    path, w_dot = path_and_velocity(generator, *runs)
    u, _, vh = torch.linalg.svd(path(0.0))
    u_dot, v_dot = singular_vector_velocities(path(0.0), w_dot)
    velocities = (u_dot, singular_value_velocities(path(0.0), w_dot), v_dot)
    assert_second_order(lambda t: frames(path(t), (u, vh.mT)), velocities)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_lemma_4_holds_for_rectangular_matrices(shape, generator):
    u, v = (torch.linalg.qr(normal(generator, n, 3))[0] for n in shape)
    start, direction = u * torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64) @ v.T, normal(generator, *shape)
    velocities = (singular_value_velocities(start, direction),)
    assert_second_order(lambda t: [singular_values(start + t * direction)], velocities)


def test_lemma_5_keeps_frames_orthonormal_and_builds_the_velocity(generator):
    w, w_dot = separated(generator), normal(generator, 4, 4)
    u, s, vh = torch.linalg.svd(w)
    u_dot, v_dot = singular_vector_velocities(w, w_dot)
    s_dot = singular_value_velocities(w, w_dot)
    for frame, velocity in ((u, u_dot), (vh.T, v_dot)):
        rotation_rate = frame.T @ velocity
        torch.testing.assert_close(rotation_rate, -rotation_rate.T, rtol=0, atol=1e3 * EPS)
    # The product rule; the bracket of Lemma 5 over gaps of order 1 costs a few digits.
    built = u_dot * s @ vh + u * s_dot @ vh + u * s @ v_dot.T
    torch.testing.assert_close(built, w_dot, rtol=0, atol=1e3 * EPS)


@pytest.mark.parametrize("runs", [(), (2,)])
def test_lemma_6_is_the_velocity_of_alignment_under_the_flow(runs, generator):
    layers, pull, speeds = flow(generator, *runs)
    middle = [torch.linalg.svd(w) for w in layers]

    def alignment(t):
        (u1, _, _), (_, _, v2) = (
            frames(w + t * speed, (u, vh.mT)) for w, speed, (u, _, vh) in zip(layers, speeds, middle, strict=True)
        )
        return [v2.mT @ u1]

    torch.testing.assert_close(alignment(0.0)[0], alignment_matrix(*layers), rtol=0, atol=1e3 * EPS)
    assert_second_order(alignment, [alignment_velocity(*layers, pull)])


def test_lemmas_6_and_7_hold_along_the_integrated_flow(generator):
    layers, _, _ = flow(generator)
    h = 2.0**-10
    path = population_flow(layers, TASK, [0.5 - h, 0.5, 0.5 + h], rtol=1e-12)
    middle = [torch.linalg.svd(w[1]) for w in path.weights]

    def observed(i):
        (u1, s1, _), (_, s2, v2) = (
            frames(w[i], (u, vh.mT)) for w, (u, _, vh) in zip(path.weights, middle, strict=True)
        )
        return v2.mT @ u1, s1, s2

    w1, w2 = (w[1] for w in path.weights)
    pull = w2 @ w1 @ population_force(w2 @ w1, TASK, Objective())
    assert float((w2 @ w1 - path.product[0]).norm()) > 1e-3
    velocities = (alignment_velocity(w1, w2, pull), *layer_value_velocities(w1, w2, pull))
    for before, after, velocity in zip(observed(0), observed(2), velocities, strict=True):
        assert float(velocity.norm()) > 0.1
        # h^2 = 1e-6 times a third derivative; the largest error measured is 5e-6.
        torch.testing.assert_close((after - before) / (2 * h), velocity, rtol=0, atol=5e-5)


@pytest.mark.parametrize("runs", [(), (2,)])
def test_lemma_7_is_the_velocity_of_both_layers_values(runs, generator):
    layers, pull, speeds = flow(generator, *runs)
    velocities = layer_value_velocities(*layers, pull)
    assert_second_order(
        lambda t: [singular_values(w + t * speed) for w, speed in zip(layers, speeds, strict=True)], velocities
    )


@pytest.mark.parametrize("widths", [(4, 4, 4), (5, 3, 4), (3, 6, 2)])
def test_lemma_7_equals_lemma_4_on_the_layers_velocities(widths, generator):
    d, h, m = widths
    layers, pull = (normal(generator, 2, h, d), normal(generator, 2, m, h)), normal(generator, 2, m, d)
    for got, w, speed in zip(layer_value_velocities(*layers, pull), layers, layer_gradients(layers, pull), strict=True):
        torch.testing.assert_close(got, singular_value_velocities(w, speed), rtol=0, atol=1e-12)


def test_lemma_7_of_aligned_layers_is_theorem_3(generator):
    u1, v1, u2 = (rotation(generator, 4) for _ in range(3))
    s1, s2 = (torch.tensor(s, dtype=torch.float64) for s in ([2.0, 1.5, 1.0, 0.5], [3.0, 2.0, 1.0, 0.4]))
    w1, w2, x = u1 * s1 @ v1.T, u2 * s2 @ u1.T, normal(generator, 4, 4)
    force = (v1.T @ (x + x.T) @ v1).diagonal()
    got1, got2 = layer_value_velocities(w1, w2, w2 @ w1 @ (x + x.T))
    torch.testing.assert_close(got1, s1 * s2**2 * force, rtol=0, atol=1e3 * EPS)
    torch.testing.assert_close(got2, s2 * s1**2 * force, rtol=0, atol=1e3 * EPS)


def test_aligned_layers_stay_aligned_exactly_when_their_frames_turn_together(generator):
    # Under C = 0 both layers' Gram matrices are the same for ever: A' = 0 although U1 and V2 move.
    u1, v1, u2 = (rotation(generator, 4) for _ in range(3))
    s = torch.tensor([2.0, 1.5, 1.0, 0.5], dtype=torch.float64)
    w1, w2, x = u1 * s @ v1.T, u2 * s @ u1.T, normal(generator, 4, 4)
    pull = w2 @ w1 @ (x + x.T)
    u1_dot, _ = singular_vector_velocities(w1, w2.T @ pull)
    assert float(u1_dot.norm()) > 0.1
    assert float(alignment_velocity(w1, w2, pull).norm()) < 1e-10


def test_what_has_no_velocity_is_refused(generator):
    eye, w = torch.eye(3, dtype=torch.float64), normal(generator, 3, 3)
    with pytest.raises(ValueError, match=r"differ by 0 of the largest.*give matrices with distinct singular values"):
        singular_vector_velocities(eye, w)
    with pytest.raises(ValueError, match="distinct singular values"):
        singular_vector_velocities(0 * eye, w)
    nearly = torch.diag(torch.tensor([1.0, 1.0 + 1e-9, 0.5], dtype=torch.float64))
    with pytest.raises(ValueError, match="distinct singular values"):
        alignment_velocity(w, nearly, w)
    with pytest.raises(ValueError, match=r"shape \(3, 4\); singular vectors have velocities here for square layers"):
        singular_vector_velocities(torch.ones(3, 4), torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"shape \(3, 3\), its velocity \(2, 3\); give both in one shape"):
        singular_value_velocities(w, w[:2])
    for velocities in (alignment_velocity, layer_value_velocities):
        with pytest.raises(ValueError, match=r"pull of shape \(2, 3\) do not fit"):
            velocities(w, w, w[:2])
