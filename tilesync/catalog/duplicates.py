"""Files of different versions that have the same content, found by their digests: a query each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tilesync.catalog.schema import HELD_BLOB, read_held
from tilesync.model import Blob, Content, Held, Kind, Twin, Version

if TYPE_CHECKING:
    from tilesync.catalog.catalog import Catalog

ENOUGH = 4
"""Twins of one file that are named: the first that is as it was left is taken."""

NEWEST = 2
"""Versions that are asked for many files in one question: most of what has a twin has it there."""

_MANY = 500

_SAYS = "EXISTS (SELECT 1 FROM {0} s WHERE s.version=blob.version AND s.source=blob.key AND s.grown=0)"
_TWIN = f"SELECT version, kind, implicit, {_SAYS.format('reference')}, {_SAYS.format('remark')}, {HELD_BLOB} FROM blob"
_THERE = "(SELECT retired FROM version WHERE serial={0}.version) IS NULL"
_OF_USE = "({0} OR {1}.lying_sha256 IS NULL)"
"""What lies unpacked is of no use where everything is to lie as it is stored."""

_NEWEST = f"AND {_OF_USE.format('?', 'blob')} AND {_THERE.format('blob')} ORDER BY version DESC LIMIT {ENOUGH}"
_IN_ONE = f"{_TWIN} INDEXED BY blob_{{0}} WHERE {{0}} IN ({{1}}) AND state=1 AND version=?"
_BY_MD5 = f"{_TWIN} WHERE md5=? AND md5 IS NOT NULL AND state=1 AND size=? AND version{{0}} {_NEWEST}"
_BY_SHA256 = f"{_TWIN} WHERE sha256=? AND state=1 AND size=? AND version{{0}} {_NEWEST}"
_OTHERS = ("<?", ">?")
"""Two ranges of the index, so that the many files of one version with one content are never read through."""

_HAS = f"""EXISTS (SELECT 1 FROM blob o WHERE {{0}} AND o.state=1 AND o.size=b.size
  AND o.version{{1}}b.version AND {_OF_USE.format("?1", "o")} AND {_THERE.format("o")})"""
_SAME = ("b.sha256 IS NULL AND o.md5=b.md5 AND o.md5 IS NOT NULL", "o.sha256=b.sha256")
_WANTED = f"""
SELECT coalesce(sum(b.size), 0) FROM blob b WHERE b.version=?2 AND b.state=0
  AND ({" OR ".join(_HAS.format(same, others[0]) for same in _SAME for others in _OTHERS)})
"""


class Twins:
    """The twins of files of one catalog; those of the newest version come first."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def by_digest(self, version: Version, blobs: Sequence[Blob], *, every: bool = False) -> dict[str, list[Twin]]:
        """By size and SHA-256, or MD5 where a blob tells no other, for each name where there are any: one of a newest
        version that has it, or `every` one. Versions of the same content come first, of which a file is a link away.
        """
        others = [other for other in reversed(self._catalog.versions()) if other.serial != version.serial]
        others.sort(key=lambda other: other.content is not version.content)
        left = [blob for blob in blobs if blob.sha256 or blob.md5] if others else []
        found: dict[str, list[Twin]] = {}
        for other in others[: 0 if every else NEWEST]:
            for start in range(0, len(left), _MANY):
                found.update(self._in_one(other, left[start : start + _MANY], version.content))
            left = [blob for blob in left if blob.name not in found]
        claimed = ((blob.name, blob.sha256, blob.size) for blob in left if blob.sha256)
        unclaimed = ((blob.name, blob.md5, blob.size) for blob in left if blob.md5 and not blob.sha256)
        found.update(self._find(_BY_SHA256, version, claimed))
        found.update(self._find(_BY_MD5, version, unclaimed))
        return found

    def _in_one(self, other: Version, blobs: Sequence[Blob], content: Content) -> dict[str, list[Twin]]:
        claimed = {(blob.sha256, blob.size) for blob in blobs if blob.sha256}
        unclaimed = {(blob.md5, blob.size) for blob in blobs if not blob.sha256}
        twins: dict[tuple[bytes | None, int], Twin] = {}
        for twin in self._among(other, "sha256", claimed):
            twins[twin.held.stored_sha256, twin.held.blob.size] = twin
        for twin in self._among(other, "md5", unclaimed):
            twins[twin.held.blob.md5, twin.held.blob.size] = twin
        if content is not other.content:
            twins = {key: twin for key, twin in twins.items() if content is Content.DECODED or not twin.held.unpacked}
        wished = {blob.name: (blob.sha256 or blob.md5, blob.size) for blob in blobs}
        return {name: [twins[known]] for name, known in wished.items() if known in twins}

    def _among(self, other: Version, column: str, contents: Iterable[tuple[bytes | None, int]]) -> list[Twin]:
        """The files of one version that have one of these digests."""
        digests = [digest for digest, _ in contents]
        sql = _IN_ONE.format(column, ", ".join("?" * len(digests)))
        return [_twin(other, row) for row in self._catalog.query(sql, *digests, other.serial)] if digests else []

    def by_sha256(self, version: Version, held: Sequence[Held]) -> dict[str, list[Twin]]:
        """By size and SHA-256, for each name where there are any."""
        return self._find(
            _BY_SHA256, version, ((one.blob.name, one.stored_sha256, one.blob.size) for one in held if one.sha256)
        )

    def _find(self, sql: str, version: Version, contents: Iterable[tuple[str, bytes, int]]) -> dict[str, list[Twin]]:
        others = {other.serial: other for other in self._catalog.versions() if other.serial != version.serial}
        found: dict[str, list[Twin]] = {}
        of_use = version.serial, version.content is Content.DECODED
        for name, digest, size in contents if others else ():
            older, newer = (self._catalog.query(sql.format(o), digest, size, *of_use) for o in _OTHERS)
            twins = [_twin(others[row[0]], row) for row in (*newer, *older)]
            if twins:
                found[name] = twins
        return found

    def bytes_of_wanted(self, version: Version) -> int:
        """How many bytes of what is wanted other versions hold, by size and digest."""
        count: int = self._catalog.query(_WANTED, version.content is Content.DECODED, version.serial)[0][0]
        return count

    def copy_references(self, version: Version, twins: Iterable[Twin]) -> None:
        """Take over what twins of the same names ask for, in place of what was said of those names before."""
        sql = (
            "INSERT OR IGNORE INTO reference SELECT ?, source, target, role, name, 0 FROM reference"
            " WHERE version=? AND source=? AND grown=0"
        )
        named = [(twin.version.serial, twin.held.blob.name) for twin in twins]
        with self._catalog.transaction() as db:
            self._catalog.references.void(db, version, (name for _, name in named))
            db.executemany(sql, ((version.serial, serial, self._catalog.key(name)) for serial, name in named))


def _twin(of: Version, row: Sequence[Any]) -> Twin:
    _, kind, implicit, asks, remarked, *held = row
    return Twin(of, read_held(held), Kind(kind), bool(implicit), bool(asks), bool(remarked))
