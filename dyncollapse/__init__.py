"""Which dimensions of a contrastive embedding collapse, and why: trained, integrated and in closed form.

Wherever a signature says Tensor, these names take NumPy arrays as well, and give tensors back.
"""

from types import FunctionType
from typing import Any

import lazy_loader

# Public names and where they live are in __init__.pyi; each module is imported when a name of it is first used.
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Functions of these wings call each other with tensors, some in every step of a training. They are wrapped here, so
# that only callers from outside pay for the look at every argument: half a microsecond each.
_TENSORS_ONLY = ("dyncollapse.model.", "dyncollapse.theory.", "dyncollapse.dynamics.", "dyncollapse.simulation.")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # takes as long as the rest of this import

        return version(__name__)
    value = _load(name)
    if isinstance(value, FunctionType) and value.__module__.startswith(_TENSORS_ONLY):
        from dyncollapse.model.array_arguments import takes_arrays

        if (value := takes_arrays(inner := value)) is not inner:
            value.__module__ = __name__  # where pickle finds it
    globals()[name] = value
    return value


for _name in globals().keys() & set(__all__):  # with lazy_loader's EAGER_IMPORT
    __getattr__(_name)
