"""Where flows and SGD go by NumPy arrays: linear networks with compiled forces, small enough for PyTorch to lose."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dyncollapse.model._kernels import WIDEST, is_compiled
from dyncollapse.model.forces import COMPILED
from dyncollapse.model.networks import Weights, is_linear
from dyncollapse.model.objective import Objective
from dyncollapse.model.pairs import Pairs


def on_arrays(objective: Objective, weights: Weights, biases: Sequence[Tensor], pairs: Pairs) -> bool:
    """Whether `SampleField` and `LinearSteps` are for this network and these batches.

    Layers are no wider than WIDEST, with the input that is 1 for biases: NumPy's products of wider ones take all cores
    in SGD.

    Args:
        objective: What is minimised.
        weights: One tensor (*runs, out, in) per layer.
        biases: One tensor (*runs, out) per layer, or none.
        pairs: Views (*batches, *runs, n, d).

    Returns:
        False where the gradient is PyTorch's.
    """
    narrow = all(max(w.shape[-2:]) + bool(biases) <= WIDEST for w in weights)
    whole = {p.dtype for p in (*weights, *biases)} in ({torch.float32}, {torch.float64})  # NumPy has no bfloat16
    return narrow and whole and has_compiled_force(objective, weights, pairs)


def has_compiled_force(objective: Objective, weights: Weights, pairs: Pairs) -> bool:
    """Whether compiled functions do what grows with the batch; arguments as of `on_arrays`."""
    linear = is_linear(objective.activation, len(weights)) and objective.loss in COMPILED
    return linear and is_compiled(weights[-1].shape[-2], pairs.anchor)


def force_settings(objective: Objective, views: str) -> tuple[float, ...]:
    """What the functions of `_forces_compiled` for this loss take beside P and both views."""
    # numba would compile once more for an integer.
    constant = () if objective.temperature is None else (float(objective.temperature),)
    return views == "one-sided", *constant
