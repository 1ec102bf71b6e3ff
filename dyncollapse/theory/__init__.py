"""Closed forms: the infinite-batch loss, rest points and thresholds, Riccati solutions, alignment, velocities.

What the gradient flow does, without integrating it: each function names its lemma or equation.
"""
