"""What a server imports first that workers are forked from: it ends with the program that started it.

It imports for seconds before it would notice by itself that nobody needs it any more.
"""

from dyncollapse.interrupts import end_with_parent

end_with_parent()
