"""Many toy simulations: a grid of settings, packed into ensembles, run by workers, resumed and collected into tables.

Each point of the grid has its own folder, so that a killed sweep loses nothing that was finished.
"""
