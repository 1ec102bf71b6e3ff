"""Contrastive pretraining: trainer, optimiser, distributed processes, checkpoints, run folders, collapse monitor."""
