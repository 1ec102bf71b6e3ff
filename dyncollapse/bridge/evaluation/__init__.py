"""Trained encoders: loaded, embedded, diagnosed, probed, tabulated beside the paper, drawn."""
