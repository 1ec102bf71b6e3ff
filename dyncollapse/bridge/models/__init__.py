"""Encoders and projectors, and checkpoints of other libraries, matched by the names and shapes of their tensors."""
