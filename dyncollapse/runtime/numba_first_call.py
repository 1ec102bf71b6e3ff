"""An import of servers that fork workers: numba's first call, so that no worker has to make it.

At the first call of any compiled function, numba imports for a third of a second what it knows of Python and NumPy.
"""

from numba import njit

njit(lambda: None)()
