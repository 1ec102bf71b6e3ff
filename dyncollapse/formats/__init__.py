"""Read files from strangers as data: arrays, archives, pickles without running them, PyTorch files, mapped files.

Every type, size and depth is checked before memory is allocated for it.
"""
