"""Whether the server of the page has ended: calculations that are under way then stop."""

import threading

ENDED = threading.Event()
