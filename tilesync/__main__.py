"""The entry point: `tilesync`, and `python -m tilesync`."""

import os

_INTERRUPTED = 130
"""Exit code after Ctrl-C. It is repeated here because `tilesync.errors` may not be loaded yet."""


def main() -> None:
    """Load the command line and run it. Ctrl-C while it loads ends with the exit code and no traceback."""
    try:
        from tilesync.cli.signals import install_signal_handlers

        install_signal_handlers()  # before the rest is loaded: it takes a tenth of a second
        from tilesync.runtime.event_loop import tune_garbage_collector

        tune_garbage_collector()  # modules are not garbage: looking for some took a tenth of the time to load them
        from tilesync.cli.main import main as run

        run()
    except KeyboardInterrupt:
        os._exit(_INTERRUPTED)  # exit at once: a second Ctrl-C during a normal exit would print a traceback


if __name__ == "__main__":
    main()
