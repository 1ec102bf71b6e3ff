"""What happens after training: load encoders, embed images, diagnose, probe, compare with the paper, draw."""
