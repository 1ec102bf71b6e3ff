"""Names of the activations that a projector of another project may have; importing them loads nothing heavy."""

from typing import Literal

Activation = Literal["relu", "gelu", "tanh", "silu", "leaky-relu", "elu", "selu", "sigmoid", "identity"]
Last = Literal["normalise", Activation]
