"""Programs that only start and end processes, at once: they find no PyTorch, which takes seconds to import."""

import os
import sys
import time
from pathlib import Path


def without_torch(folder: Path, code: str = "raise ImportError") -> dict[str, str]:
    """An environment in which programs find this code instead of PyTorch; a file in the folder holds it."""
    (folder / "torch.py").write_text(code)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}


def sleep_and_tell(path: str, _tell: object, _save: object) -> None:
    """Work for a process of its own: leave its number in a file, and do not end."""
    Path(f"{path}.partial").write_text(str(os.getpid()))
    os.rename(f"{path}.partial", path)
    time.sleep(3600)
