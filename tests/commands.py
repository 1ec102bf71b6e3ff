"""What the tests of all commands ask of them."""


def refused(result):
    """The one line of a refusal."""
    assert result.exit_code == 2, (result.stderr, result.exception)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("dyncollapse: ")
    return line
