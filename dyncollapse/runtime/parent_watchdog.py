"""The first import of the server that forks workers: from then on Linux ends the server together with its program.

By itself the server would notice that its program has ended only after seconds of further imports.
"""

import os

from dyncollapse.runtime.process import PARENT, end_with_parent

end_with_parent(int(os.environ[PARENT]) if PARENT in os.environ else None)
