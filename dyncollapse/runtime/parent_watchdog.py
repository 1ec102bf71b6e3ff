"""The first import of servers that fork workers: from then on Linux ends the server together with its program.

By itself the server would notice that its program has ended only after seconds of further imports. Among these a
server that was told its program looks for no garbage, until its last import.
"""

import gc
import os

from dyncollapse.runtime.process import PARENT, end_with_parent

end_with_parent(int(os.environ[PARENT]) if PARENT in os.environ else None)
if PARENT in os.environ:
    gc.disable()
