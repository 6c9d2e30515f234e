# A cell of a notebook. Jupyter runs an event loop already, so a cell can await. Interrupt the cell to stop the mirror;
# run it again to continue where it stopped.

import os

import tilesync as ts

imodel, dest = os.environ["IMODEL"], os.environ["DEST"]  # in a notebook: write them here
monitor = ts.RunMonitor()  # counts everything, live


def show_progress(event: ts.events.Event) -> None:
    """Show one line, which each event overwrites. Events come from any thread: return quickly."""
    counts = monitor.counts()
    print(f"\r{counts.fetched + counts.reused} of {counts.listed} files, {counts.bytes / 1e6:.1f} MB", end="")


result = await ts.aio.mirror(imodel, dest, monitor=monitor, on_event=show_progress, every_file=True)

print(f"\nversion {result.version} of {result.export}, in {result.seconds:.1f} s")
for version in await ts.aio.versions(dest):
    print("*" if version.current else " ", version.version, version.modified, f"{version.files} files")
