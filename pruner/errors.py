"""The exceptions of this program.

- `InputError`: something the user gave cannot be used. Its text is one line: what is wrong, where, and what
  would be right. The command line prints it and exits with 2.
- `Diverged`: training produced a loss that is not a number.
"""


class InputError(ValueError):
    """What the user gave cannot be used; the text is one line for the user."""


class Diverged(ArithmeticError):
    """The loss became infinite or not a number; the learning rate is usually too high."""
