"""Which networks are stepped and integrated on arrays."""

import pytest
import torch

from dyncollapse import GaussianTask, Objective, gaussian_init
from dyncollapse.dynamics._on_arrays import on_arrays


@pytest.mark.parametrize(
    ("objective", "widths", "biased", "expected"),
    [
        (Objective(), (4, 3, 2), False, True),
        (Objective("dot"), (4, 3, 2), True, True),
        (Objective(activation="relu"), (4, 3), False, True),
        (Objective(activation="relu"), (4, 3, 2), False, False),
        (Objective("spectral"), (4, 3), False, False),
        (Objective(lambda z, *_: z.mean((-2, -1))), (4, 3), False, False),
        (Objective(), (64, 2), False, True),
        (Objective(), (64, 2), True, False),
        (Objective(), (65, 2), False, False),
        (Objective(), (2, 65, 2), False, False),
        (Objective(), (2, 65), False, False),
    ],
)
def test_those_are_linear_and_small_and_their_loss_is_compiled(objective, widths, biased, expected, generator):
    weights = gaussian_init(list(widths), generator)
    biases = [w[:, 0] for w in weights if biased]
    pairs = GaussianTask.block(widths[0], 1).sample(4, generator)
    assert on_arrays(objective, weights, biases, pairs) is expected


def test_batches_are_small(generator):
    weights = gaussian_init([2, 2], generator)
    for n, expected in ((2**15, True), (2**15 + 1, False)):
        pairs = GaussianTask.block(2, 1).sample(n, generator)
        assert on_arrays(Objective(), weights, [], pairs) is expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_all_parameters_have_one_precision_that_numpy_has(dtype, generator):
    weights = tuple(w.to(dtype) for w in gaussian_init([2, 2, 2], generator))
    pairs, bias = GaussianTask.block(2, 1).sample(4, generator).to(dtype), torch.ones(2, dtype=dtype)
    assert on_arrays(Objective(), weights, [bias, bias], pairs) is (dtype in (torch.float32, torch.float64))
    other = torch.float32 if dtype == torch.float64 else torch.float64
    assert not on_arrays(Objective(), weights, [bias, bias.to(other)], pairs)
    assert not on_arrays(Objective(), (weights[0], weights[1].to(other)), [], pairs)
