"""The last import of servers that fork workers: numba's first call, so that no worker has to make it.

At the first call of any compiled function, numba imports for a third of a second what it knows of Python and NumPy.
From then on garbage is collected, but not looked for among what was imported.
"""

import gc

try:
    from numba import njit

    njit(lambda: None)()
finally:
    gc.freeze()
    gc.enable()
