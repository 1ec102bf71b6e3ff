"""The command line, one file per command: options, calls into the library, tables on the terminal, exit codes.

Nothing imports it but `python -m dyncollapse`.
"""
