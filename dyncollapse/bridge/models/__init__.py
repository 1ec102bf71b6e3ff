"""Encoders and projectors, and checkpoints of other libraries matched to them by name and shape."""
