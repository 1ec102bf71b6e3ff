"""The command line: a page of help and options per command, and a file that runs it, prints tables and exits.

Nothing imports it but `python -m dyncollapse`.
"""
