"""The page of each command: its help and options, and the function that runs it, which is imported when it is called.

Nothing here imports PyTorch.
"""
