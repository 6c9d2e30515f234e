"""`python -m tilesync`."""

from tilesync.cli.commands import main

if __name__ == "__main__":
    main()
