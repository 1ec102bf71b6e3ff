"""One toy simulation from its settings to its verdict: configuration, run, verdict and saved report.

Sweeps and commands run it; it compares the dynamics with each other and with the closed forms.
"""
