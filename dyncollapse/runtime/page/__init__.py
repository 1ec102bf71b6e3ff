"""One self-contained web page for the result of any command: a record in, HTML out."""
