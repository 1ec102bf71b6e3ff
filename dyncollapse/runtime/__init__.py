"""What any program needs: atomic files, locked folders, signals, threads, workers, progress and checked settings.

Nothing here knows what collapse is.
"""
