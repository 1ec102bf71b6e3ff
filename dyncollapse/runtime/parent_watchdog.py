"""Imported first by the server from which workers are forked: Linux then ends it together with its program.

The server goes on importing for seconds before it would notice by itself that its program has ended.
"""

import os

from dyncollapse.runtime.process import PARENT, end_with_parent

end_with_parent(int(os.environ[PARENT]) if PARENT in os.environ else None)
