"""Real encoders: contrastive pretraining with the paper's projectors, embeddings, diagnoses and linear probes."""

import lazy_loader

# __init__.pyi lists the public names and their modules; a module is imported when one of its names is first used.
_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
# Names of earlier versions, and today's.
EARLIER = {"Both": "DiagnosedSpaces", "Loaded": "LoadedEncoder", "diagnose_both": "diagnose_spaces"}


def __getattr__(name: str) -> object:
    return _public(EARLIER.get(name, name))
