"""What any program needs: files written whole, folders claimed, signals, threads, workers, progress, settings.

Nothing here knows what collapse is.
"""
