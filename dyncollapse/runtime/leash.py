"""What a server imports first that workers are forked from: it ends with the program that started it.

It imports for seconds before it would notice by itself that nobody needs it any more.
"""

import os

from dyncollapse.runtime.interrupts import PARENT, end_with_parent

end_with_parent(int(os.environ[PARENT]) if PARENT in os.environ else None)
