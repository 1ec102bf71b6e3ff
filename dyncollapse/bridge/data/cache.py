"""Where downloaded images and indices of shards are kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder of what is kept: dyncollapse in $XDG_CACHE_HOME, or in ~/.cache without that variable."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "dyncollapse"
