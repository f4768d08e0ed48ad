"""`python -m segtool` is `segtool`."""

import gc

from segtool.system.signals import end_at_signals


def main() -> None:
    """Runs the command line. A signal ends it without a traceback from here on, while Python still imports.

    What is imported is no garbage. Python would look for it there, object by object, while it imports and again when it
    ends: a third of the time of `segtool predict` of a small image. `end_imports` has it look where commands work.
    """
    gc.disable()
    end_at_signals()
    from segtool.cli import main as command_line
    from segtool.system.threads import let_waiting_threads_sleep

    let_waiting_threads_sleep()
    try:
        command_line()
    finally:
        gc.freeze()


if __name__ == "__main__":
    main()
