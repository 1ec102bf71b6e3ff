"""What a trained encoder is worth: loaded, embedded, diagnosed, probed, tabulated beside the paper, drawn."""
