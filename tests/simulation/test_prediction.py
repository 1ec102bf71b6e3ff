"""What steps of SGD, momentum included, take longer than the flow."""

import numpy as np
import pytest

from dyncollapse.simulation.prediction import delay_of_steps
from dyncollapse.simulation.presets import resolve


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("lr", [0.001, 0.1, 1.0])
def test_the_delay_of_steps_is_that_of_steps(lr, momentum):
    c, rate, count = resolve({"lr": lr, "momentum": momentum}), 0.5, 20_000
    weight, velocity, grown = 1.0, 0.0, 0.0
    for step in range(count):
        velocity = momentum * velocity + rate * weight
        weight += lr * velocity
        grown += np.log(weight) if step >= count // 2 else 0.0  # once the slower root has died out
        weight, velocity = 1.0, velocity / weight
    by_time = rate * lr / (1 - momentum) * (count - count // 2)
    assert delay_of_steps(c, rate) == pytest.approx(by_time / grown, rel=1e-9)
    assert delay_of_steps(c, rate) >= 1
    assert delay_of_steps(c, 1e-12) == pytest.approx(1, abs=1e-6)
