"""Where downloaded images and indices of shards are kept, and how long a download may be without an answer."""

import os
from pathlib import Path

PATIENCE = 5.0  # seconds without an answer after which a download fails


def cache_folder() -> Path:
    """The folder of what is kept: dyncollapse in $XDG_CACHE_HOME, or in ~/.cache without that variable."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "dyncollapse"
