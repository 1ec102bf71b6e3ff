"""The figure scripts as modules, when Python starts beside this folder: `from figures.fig05_alignment import draw`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # scripts import figure.py by its own name
