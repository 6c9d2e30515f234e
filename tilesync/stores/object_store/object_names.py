"""Names of the objects of a destination, and names of files that a store cannot hold."""

from __future__ import annotations

from collections.abc import Iterable

from tilesync.core.safe_names import are_all_safe, find_universal_problem, raise_if_unsafe
from tilesync.protocols import Objects
from tilesync.stores.base import VERSIONS_DIR

VERSIONS_PREFIX = f"{VERSIONS_DIR}/"

MAX_KEY_BYTES = 1024
"""Maximum length of an object name: characters in Azure, bytes in S3. Counting bytes satisfies both. Source: "Naming
and Referencing Containers, Blobs, and Metadata"; Amazon S3, "Naming Amazon S3 objects".
"""

VERSION_PATH_BYTES = 160
"""Bytes reserved for `versions/` and the name of a version."""


def object_key(version: str, name: str) -> str:
    """Return the object name of a file of a version."""
    return f"{VERSIONS_PREFIX}{version}/{name}"


def key_prefix_bytes(objects: Objects) -> int:
    """Return the maximum number of bytes before the name of a file."""
    return VERSION_PATH_BYTES + len(objects.display_name.encode())


def check_object_names(names: Iterable[str], objects: Objects) -> None:
    """Raise UnsafeName for names that this object store cannot hold."""
    names, max_bytes = list(names), MAX_KEY_BYTES - key_prefix_bytes(objects)
    if not are_all_safe(names, path_bytes=max_bytes):
        rejects_empty = objects.rejects_empty_segments
        problems = (
            (name, find_universal_problem(name) or _name_problem(name, max_bytes, rejects_empty_segments=rejects_empty))
            for name in names
        )
        raise_if_unsafe([(name, problem) for name, problem in problems if problem], "cannot be stored safely")


def _name_problem(name: str, max_bytes: int, *, rejects_empty_segments: bool) -> str | None:
    if rejects_empty_segments and "" in name.split("/"):
        return "has an empty folder name, which a bucket cannot store"
    return (
        f"is longer than the {max_bytes} bytes that fit here"
        if len(name.encode(errors="surrogatepass")) > max_bytes
        else None
    )
