"""The exceptions of this program, and the check that most often raises one.

- `InputError`: the user's input cannot be used. Its text is one line: what is wrong, where, and what would be right.
  The command line prints it and exits with 2.
- `Diverged`: training produced a loss that is infinite or not a number.
"""


class InputError(ValueError):
    """The user's input cannot be used; the text is one line for the user."""


class Diverged(ArithmeticError):
    """The loss became infinite or not a number; the learning rate is usually too high."""


def check_name(where: str, name: str, known: tuple[str, ...]) -> None:
    """Raise InputError unless `name` is in `known`. `where`: the key or option that the message names."""
    if name not in known:
        raise InputError(f"{where}: {name!r} is not one of {', '.join(known)}")
