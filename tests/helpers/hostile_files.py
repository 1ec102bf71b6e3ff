"""Files that no one saves, but that a stranger may send: `FILES` maps each one's name to what writes it."""

from helpers import hostile_archives, hostile_arrays, hostile_checkpoints, hostile_tables
from helpers.hostile_writing import FILES, Claim, tensor, write_pt

WRITERS = (
    hostile_archives,
    hostile_arrays,
    hostile_checkpoints,
    hostile_tables,
)  # imported, they enter themselves in FILES

__all__ = ["FILES", "WRITERS", "Claim", "tensor", "write_pt"]
