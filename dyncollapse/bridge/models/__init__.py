"""Encoders and projectors, ours and other people's checkpoints matched to them by name and shape."""
