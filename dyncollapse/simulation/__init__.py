"""One toy run from its settings to its verdict: configuration, run, verdict and the saved report.

Sweeps and commands run it; it knows the dynamics and the closed forms that it compares.
"""
