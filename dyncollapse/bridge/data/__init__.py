"""Images into batches: folders and pixels read, augmentations drawn, batches loaded by seed and step alone."""
