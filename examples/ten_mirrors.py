"""Mirror many iModels at once, in one process, and print one summary.

    python ten_mirrors.py /srv/tiles IMODEL_ID IMODEL_ID ...

Each gets a folder of its own below the first argument. The exit code is that of the worst mirror.
"""

import asyncio
import sys
from pathlib import Path

import tilesync as ts

AT_ONCE = 10


async def mirror_one(imodel: str, dest: Path, slots: asyncio.Semaphore) -> ts.MirrorResult:
    """Mirror one iModel. An error does not end the other mirrors."""
    async with slots:
        try:
            return await ts.aio.mirror(imodel, dest / imodel)
        except ts.TilesyncError as error:
            failed: ts.MirrorResult = error.result  # has the error, and the counts up to it
            return failed


async def mirror_all(dest: Path, imodels: list[str]) -> int:
    """Mirror all, print a line for each and their sum, and return the exit code."""
    slots = asyncio.Semaphore(AT_ONCE)
    results = await asyncio.gather(*(mirror_one(imodel, dest, slots) for imodel in imodels))
    for imodel, result in zip(imodels, results, strict=True):
        print(imodel, result.error or ("published" if result.published else "unchanged"))
    fetched, size = sum(each.stats.fetched for each in results), sum(each.stats.bytes for each in results)
    print(f"{sum(each.ok for each in results)} of {len(results)} mirrored: {fetched} files, {size / 1e6:.1f} MB")
    return max((result.exit_code for result in results), default=0)


if __name__ == "__main__":
    sys.exit(asyncio.run(mirror_all(Path(sys.argv[1]), sys.argv[2:])))
