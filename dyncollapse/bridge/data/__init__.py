"""From image files to batches of views: folders, pixels, augmentations, and loading that depends on seed and step."""
