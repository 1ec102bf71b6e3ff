"""The same diagnostics on real encoders: contrastive pretraining with the paper's projectors, embeddings, probes."""

import lazy_loader

# Public names and where they live are in __init__.pyi; each module is imported when a name of it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
