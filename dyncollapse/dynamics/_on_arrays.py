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

    Layers are no wider than WIDEST, with the input that is 1 for biases: NumPy's products of wider ones take all cores.

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
    linear = is_linear(objective.activation, len(weights)) and objective.loss in COMPILED
    return narrow and whole and linear and is_compiled(weights[-1].shape[-2], pairs.anchor)
