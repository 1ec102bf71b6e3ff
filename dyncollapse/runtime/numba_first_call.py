"""The last import of servers that fork workers: numba's first call, so that no worker has to make it.

At the first call of any compiled function, numba imports for a third of a second what it knows of Python and NumPy.
From then on a server that left garbage for later looks for it again, but not among what was imported.
"""

import gc
import os

from dyncollapse.runtime.process import PARENT

try:
    from numba import njit

    njit(lambda: None)()
finally:
    if PARENT in os.environ:
        gc.freeze()
        gc.enable()
