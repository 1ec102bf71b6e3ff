"""Many toy runs: a grid of settings, packed into ensembles, run by workers, resumed, and collected into tables.

Points are folders of their own, so a killed sweep loses nothing that was recorded.
"""
