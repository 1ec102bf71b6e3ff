"""Weights over time: SGD on fresh batches, the gradient flow of fixed batches or of the population, and their distance.

Each returns the same record, a Trajectory.
"""
