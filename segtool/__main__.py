"""`python -m segtool` is `segtool`."""

from segtool.system.signals import end_at_signals


def main() -> None:
    """Runs the command line. A signal ends it without a traceback from here on, while Python still imports."""
    end_at_signals()
    from segtool.cli import main as command_line
    from segtool.system.threads import let_waiting_threads_sleep

    let_waiting_threads_sleep()
    command_line()


if __name__ == "__main__":
    main()
