"""What is trained: Gaussian data and augmentations, networks, contrastive losses and the gradient's covariance (Eq. 2).

Formulas of the paper's sections 4 and 5 before any time passes; nothing here integrates, judges or prints.
"""
