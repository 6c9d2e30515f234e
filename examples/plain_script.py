"""Mirror an iModel into a folder, and end with an exit code that cron or systemd understands.

    python plain_script.py 5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40 /srv/tiles/bridge

The identity comes from the environment: TILESYNC_TOKEN, or ITP_SERVICE_CLIENT_ID with ITP_SERVICE_CLIENT_SECRET.
"""

import sys
from datetime import timedelta

import tilesync as ts


def main(imodel: str, dest: str) -> int:
    """Mirror, say what happened, and return the exit code."""
    try:
        result = ts.mirror(
            imodel,
            dest,
            wait=timedelta(minutes=30),  # if no export is finished yet
            retention=ts.Retention(versions=10, keep_for=timedelta(days=2)),  # viewers may still load older versions
        )
    except ts.TilesyncError as error:
        # Messages and hints never contain a token or the signature of a link: they can go into any log.
        print(f"{error}\n{error.hint}", file=sys.stderr)
        return error.exit_code  # the same as that of the command line, such as 6 if the service is down

    # A second run with nothing new ends well too, but publishes nothing.
    print(f"{'published' if result.published else 'unchanged'}: version {result.version}")
    print(f"{result.stats.fetched} files fetched, {result.stats.reused} reused from an older version")
    if result.behind:
        print("a newer export is not finished yet: the next run fetches it")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
