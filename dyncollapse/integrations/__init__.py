"""Other people's training: a metric of torchmetrics, and callbacks of Lightning and of Hugging Face's Trainer.

Each module here imports the library that it is named after, and can only be imported where that is installed.
"""
