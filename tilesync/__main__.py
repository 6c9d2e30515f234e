"""The entry point: `tilesync`, and `python -m tilesync`."""

import os

_INTERRUPTED = 130
"""The exit code after Ctrl-C; what defines it is not loaded yet."""


def main() -> None:
    """Load the command line and run it. Ctrl-C while it loads ends with the exit code and no traceback."""
    try:
        from tilesync.cli.main import main as run

        run()
    except KeyboardInterrupt:
        os._exit(_INTERRUPTED)  # at once: a second Ctrl-C would be told while Python winds down


if __name__ == "__main__":
    main()
