"""Contrastive pretraining: the trainer and its optimiser, processes, checkpoints, run folders, the collapse monitor."""
