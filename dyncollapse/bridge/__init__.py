"""The same diagnostics on real encoders: contrastive pretraining with the paper's projectors, embeddings, probes."""

import lazy_loader

# Public names and where they live are in __init__.pyi; each module is imported when a name of it is first used.
_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
# Names under which earlier versions had them.
EARLIER = {"Both": "DiagnosedSpaces", "Loaded": "LoadedEncoder", "diagnose_both": "diagnose_spaces"}


def __getattr__(name: str) -> object:
    return _public(EARLIER.get(name, name))
