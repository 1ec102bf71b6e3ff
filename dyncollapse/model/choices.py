"""Names that settings may take; nothing heavy is imported for them."""

VIEWS = ("one-sided", "two-sided")
LOSSES = ("infonce", "dot", "ntxent", "spectral")
ACTIVATIONS = ("linear", "relu")
INITIALISERS = ("gaussian", "uniform", "spectrum")
DYNAMICS = ("sgd", "flow", "population")
DTYPES = ("float32", "float64")
AUTHORS_TEMPERATURE = 0.1  # of dot and ntxent in the authors' code
