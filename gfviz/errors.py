"""The one exception that stands for a mistake in the input."""


class GfvizError(ValueError):
    """Bad input, told in one line: what is wrong, which file or key, what to do.

    The command line prints the message and exits with code 2; a library user may catch it as a `ValueError`.

    >>> raise GfvizError("k = 9 exceeds the vocabulary of 8: pass k <= 8")
    Traceback (most recent call last):
    ...
    gfviz.errors.GfvizError: k = 9 exceeds the vocabulary of 8: pass k <= 8
    """
