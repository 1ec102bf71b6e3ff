"""Names that settings may take, as types and as tuples; nothing heavy is imported for them."""

from typing import Literal, get_args

Views = Literal["one-sided", "two-sided"]
Loss = Literal["infonce", "dot", "ntxent", "spectral", "vcreg", "vicreg", "barlow", "barlow-normalised"]
SelfDistilled = Literal["byol", "simsiam"]  # with a predictor, and a target behind a stop-gradient
Weighing = Literal["infonce", "dot", "ntxent"]  # losses whose softmax weighs pairs
Activation = Literal["linear", "relu"]
Initialiser = Literal["gaussian", "uniform", "spectrum"]
Dynamics = Literal["sgd", "flow", "population"]
Dtype = Literal["float32", "float64"]

VIEWS: tuple[str, ...] = get_args(Views)
LOSSES: tuple[str, ...] = get_args(Loss)
SELF_DISTILLED: tuple[str, ...] = get_args(SelfDistilled)
ACTIVATIONS: tuple[str, ...] = get_args(Activation)
INITIALISERS: tuple[str, ...] = get_args(Initialiser)
DYNAMICS: tuple[str, ...] = get_args(Dynamics)
DTYPES: tuple[str, ...] = get_args(Dtype)
AUTHORS_TEMPERATURE = 0.1  # of dot and ntxent in the authors' code
INVARIANCE = 1.0  # weight of vcreg's and vicreg's invariance over that of their variance; 25 over 25 for VICReg
