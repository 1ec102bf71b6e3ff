"""Which networks are stepped and integrated on arrays."""

import pytest

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
    pairs = GaussianTask.block(widths[0], 1).sample(4, generator)
    assert on_arrays(objective, weights, pairs, biased=biased) is expected


def test_batches_are_small(generator):
    weights = gaussian_init([2, 2], generator)
    for n, expected in ((2**15, True), (2**15 + 1, False)):
        pairs = GaussianTask.block(2, 1).sample(n, generator)
        assert on_arrays(Objective(), weights, pairs, biased=False) is expected
