"""`python -m segtool` is `segtool`."""

import gc

from segtool.signals import end_at_signals

OBJECTS = 10_000
"""New ones after which Python looks for cycles, in place of 700: imports make hundreds of thousands that stay, and to
look them over each time takes a tenth of a short command's time."""


def main() -> None:
    """Runs the command line. A signal ends it without a traceback from here on, while Python still imports."""
    end_at_signals()
    gc.set_threshold(OBJECTS, 10, 10)
    from segtool.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
