"""What a linear encoder will learn of images under an augmentation, predicted from two moments of their views."""
