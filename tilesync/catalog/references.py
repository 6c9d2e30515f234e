"""Which file of a version asks for which, as the verified bytes said, and what follows from it: a query each."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tilesync.catalog.schema import MISSING
from tilesync.core.filters import keeper
from tilesync.model import ROOT, Completeness, Kind, Reading, Reference, Remark, Role, Unsound, Version
from tilesync.model.tiles import AWAY, BACK, DAMAGED, HOLLOW, NEEDS, SEVERAL, UNFOLLOWED, UNPACKED

if TYPE_CHECKING:
    from tilesync.catalog.catalog import Catalog

REFERENCE_SCHEMA = """
CREATE TABLE IF NOT EXISTS reference (version INTEGER NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL,
  role TEXT NOT NULL, name TEXT, grown INTEGER NOT NULL, PRIMARY KEY (version, source, target, role)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS remark (version INTEGER NOT NULL, source TEXT NOT NULL, problem TEXT NOT NULL,
  detail TEXT NOT NULL, grown INTEGER NOT NULL, PRIMARY KEY (version, source, problem, detail)) WITHOUT ROWID;
"""
"""`source` and `target` are keys of blobs; `name` is the target's where the key is another. `grown`: it is not the file
itself that says so, but the file as it is read together with others (templates, schema, buffers), which may change.
"""

_COUNT = f"""
SELECT coalesce(sum(iif(instr(detail, '{SEVERAL}'), max(1, CAST(detail AS INTEGER)), 1)), 0) FROM remark
  WHERE version=?1 AND problem IN {(UNFOLLOWED, AWAY, BACK)} AND """
"""How many URIs remarks are about."""

UNSATISFIED = ("unsafe name", "unreadable")
"""Remarks that say that something is asked for which no copy can hold."""

UNTOLD = (*UNSATISFIED, DAMAGED, HOLLOW, NEEDS, UNPACKED)
"""Remarks that are told otherwise, where what they mean depends on other files."""

_NO_TILES = (Kind.NONE, Kind.EMPTY, Kind.JSON, Kind.SCHEMA, Kind.SUBTREE, Kind.IMAGE)

_REACHED_TABLE = "CREATE TEMP TABLE IF NOT EXISTS reached (key TEXT PRIMARY KEY) WITHOUT ROWID"
_REACHED = """
INSERT OR IGNORE INTO reached WITH RECURSIVE found(key) AS (
  VALUES (?2) UNION SELECT r.target FROM found CROSS JOIN blob b ON b.version=?1 AND b.key=found.key AND b.state=1
  CROSS JOIN reference r ON r.version=?1 AND r.source=b.key) SELECT key FROM found
"""
"""Only what is held asks for something: the bytes of what was held once, or was read in part, do not count."""

_NAME = "coalesce((SELECT coalesce(b.name, b.key) FROM blob b WHERE b.version=?1 AND b.key={0}), {0})"
"""The name that stands behind a key."""

_ASKING = """source IN reached
  AND EXISTS (SELECT 1 FROM blob held WHERE held.version=?1 AND held.key=source AND held.state=1)"""
_ABSENT = """
SELECT DISTINCT r.target, coalesce(r.name, r.target) FROM reference r CROSS JOIN absent ON absent.key=r.target
  WHERE r.version=?
"""
_MISSING = f"""
SELECT name, {_NAME.format("source")}, role FROM (
  SELECT coalesce(r.name, r.target) AS name, min(r.source) AS source, r.role AS role
  FROM reference r CROSS JOIN absent ON absent.key=r.target
  WHERE r.version=?1 AND r.{_ASKING} GROUP BY r.target) ORDER BY name
"""
_KINDS = """
SELECT key, kind, implicit,
  EXISTS (SELECT 1 FROM reference r WHERE r.version=blob.version AND r.source=blob.key AND r.grown=0),
  EXISTS (SELECT 1 FROM remark r WHERE r.version=blob.version AND r.source=blob.key AND r.grown=0)
  FROM blob WHERE version=? AND key IN ({})
"""
_MANY = 500
_REMARKS = "SELECT problem, detail FROM remark WHERE version=? AND source=? AND grown=0"
_TOLD = """
SELECT target, role, name FROM reference WHERE version=? AND source=? AND (target, role) > (?, ?) AND grown=0
  ORDER BY target, role LIMIT ?
"""
_WEIGHT = (Role.CONTENT, Role.SUBTREE, Role.SCHEMA, Role.MODEL)
"""Roles without which something is lost, in this order; then any other."""

_NO_IMAGE = ", ".join(f"'{kind}'" for kind in Kind if kind not in {Kind.IMAGE, Kind.NONE, Kind.EMPTY})
_NO_SCHEMA = ", ".join(
    f"'{kind}'" for kind in Kind if kind not in {Kind.JSON, Kind.SCHEMA, Kind.TILESET, Kind.GLTF, Kind.GEOJSON}
)
_OF_OTHER_KIND = f"""
  FROM reference r CROSS JOIN blob b ON b.version=r.version AND b.key=r.target AND b.state=1
  WHERE r.version=?1 AND r.role IN ('{Role.IMAGE}', '{Role.SCHEMA}', '{Role.SHADER}')
    AND (r.role='{Role.IMAGE}' AND b.kind IN ({_NO_IMAGE}, '{Kind.EMPTY}')
      OR r.role='{Role.SCHEMA}' AND b.kind IN ({_NO_SCHEMA})
      OR r.role='{Role.SHADER}' AND b.kind='{Kind.EMPTY}')
"""
_ANNOUNCED = "SELECT count(DISTINCT target) FROM reference WHERE version=? AND grown=1"
_IN_VAIN = f"""
SELECT DISTINCT r.target, coalesce(r.name, r.target) FROM reference r WHERE r.version=?1 AND r.grown=1
  AND NOT EXISTS (SELECT 1 FROM blob b WHERE b.version=?1 AND b.key=r.target AND b.state<>{MISSING})
"""
_UNFIT = f"""
SELECT DISTINCT b.key, CASE WHEN b.kind='{Kind.EMPTY}' THEN 'it is empty'
  WHEN r.role='{Role.IMAGE}' THEN 'it holds ' || b.kind || ', no image' ELSE 'it holds no schema' END
  {_OF_OTHER_KIND} AND r.{_ASKING}
"""
_MAY_BE_UNFIT = f"SELECT 1 {_OF_OTHER_KIND} LIMIT 1"
_NEEDED = f"""
SELECT substr(detail, instr(detail, ' ') + 1), max(CAST(detail AS INTEGER)) FROM remark
  WHERE version=?1 AND problem='{NEEDS}' AND {_ASKING} GROUP BY 1
"""
_SIZE = f"""
SELECT key, coalesce(lying_size, (SELECT CAST(detail AS INTEGER) FROM remark r
    WHERE r.version=b.version AND r.source=b.key AND problem='{UNPACKED}'),
  CASE WHEN coalesce(content_encoding, '') IN ('', 'identity') THEN size END)
  FROM blob b WHERE version=? AND key=? AND state=1
"""
_UNSOUND = f"""
SELECT key, reason, coalesce(name, key), md5 IS NOT NULL, source, role, asks FROM suspect
  JOIN blob b USING (key) LEFT JOIN (SELECT target, {_NAME.format("r.source")} AS source, role,
    (SELECT kind FROM blob s WHERE s.version=?1 AND s.key=r.source) AS asks FROM reference r
    CROSS JOIN suspect ON suspect.key=r.target WHERE r.version=?1 AND r.{_ASKING}) ON target=key
  WHERE b.version=?1 AND b.state=1 ORDER BY key, source
"""
_LOST = f"remark WHERE version=?1 AND problem IN {UNSATISFIED} AND {_ASKING}"


class References:
    """The references of the versions of a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def write(
        self, db: sqlite3.Connection, version: Version, said: Sequence[tuple[str, Reading]], *, grown: bool = False
    ) -> None:
        """Take in what some files ask for, within a transaction, beside what was said of them before."""
        keyed = [(version.serial, self._catalog.key(source), reading) for source, reading in said]
        asked = ((*who, *self._target(each), grown) for *who, reading in keyed for each in reading.references)
        db.executemany("INSERT OR IGNORE INTO reference VALUES (?, ?, ?, ?, ?, ?)", asked)
        remarks = ((*who, each.problem, each.detail, grown) for *who, reading in keyed for each in reading.remarks)
        db.executemany("INSERT OR IGNORE INTO remark VALUES (?, ?, ?, ?, ?)", remarks)

    def _target(self, reference: Reference) -> tuple[str, str, str | None]:
        key = self._catalog.key(reference.target)
        return key, reference.role.value, None if key == reference.target else reference.target

    def void(self, db: sqlite3.Connection, version: Version, sources: Iterable[str], *, grown: bool = False) -> None:
        """Forget what some files ask for, within a transaction; `grown`: only what following said of them."""
        keys = [(version.serial, self._catalog.key(source)) for source in sources]
        more = " AND grown=1" if grown else ""
        for table in ("reference", "remark"):
            db.executemany(f"DELETE FROM {table} WHERE version=? AND source=?{more}", keys)

    def add(self, version: Version, source: str, reading: Reading, *, anew: bool = False, grown: bool = False) -> None:
        """Take in a part of what one file asks for; `anew`: what was said before of it is void.

        `grown`: it asks for that when it is read together with others. `anew` then voids what that said before; it is
        void, too, when the file itself comes anew.
        """
        with self._catalog.transaction() as db:
            if anew:
                self.void(db, version, [source], grown=grown)
            self.write(db, version, [(source, reading)], grown=grown)

    def of(self, version: Version, source: str, role: Role) -> list[str]:
        """What one file asks for in one role."""
        sql = "SELECT coalesce(name, target) FROM reference WHERE version=? AND source=? AND role=?"
        return [row[0] for row in self._catalog.query(sql, version.serial, self._catalog.key(source), role)]

    def implicit(self, version: Version, *, reached: bool = False) -> list[str]:
        """The held tilesets with implicit tiling; `reached`: those that the root leads to, as far as is known."""
        if reached:
            with self._catalog.transaction() as db:
                self._reach(db, version)
        sql = f"""SELECT coalesce(name, key) FROM blob WHERE version=? AND implicit=1 AND state=1
          {"AND key IN reached" if reached else ""} ORDER BY key"""
        return [row[0] for row in self._catalog.query(sql, version.serial)]

    def _reach(self, db: sqlite3.Connection, version: Version) -> None:
        """Note what the root leads to, itself among it, within a transaction."""
        db.execute(_REACHED_TABLE)
        db.execute("DELETE FROM reached")
        db.execute(_REACHED, (version.serial, self._catalog.key(ROOT)))

    def announced(self, version: Version) -> tuple[int, int]:
        """How many files subtrees announce, and how many of them are not there, or are not known to be."""
        count: int = self._catalog.query(_ANNOUNCED, version.serial)[0][0]
        if not version.globs:
            return count, self._catalog.query(f"SELECT count(*) FROM ({_IN_VAIN})", version.serial)[0][0]
        keeps = keeper(version.globs)
        return count, sum(keeps(name) for _, name in self._catalog.query(_IN_VAIN, version.serial))

    def told(self, version: Version, names: Sequence[str], *, together: int) -> Iterator[tuple[str, Reading]]:
        """What each of some held files says by itself; of one that says much, one part behind the other."""
        keys = {self._catalog.key(name): name for name in names}
        rows = list[tuple[str, str, int, int, int]]()
        for start in range(0, len(keys), _MANY):
            some = list(keys)[start : start + _MANY]
            rows += self._catalog.query(_KINDS.format(", ".join("?" * len(some))), version.serial, *some)
        kinds = {row[0]: row[1:] for row in rows}
        for key, name in keys.items():
            kind, implicit, asks, remarked = kinds[key]
            reading = Reading(Kind(kind), implicit=bool(implicit))
            if remarked:
                found = self._catalog.query(_REMARKS, version.serial, key)
                reading = reading._replace(remarks=tuple(Remark(*row) for row in found))
            if not asks:
                yield name, reading
                continue
            for references in self._asked(version, key, together):
                yield name, reading._replace(references=references)
                reading = reading._replace(remarks=())

    def _asked(self, version: Version, key: str, together: int) -> Iterator[tuple[Reference, ...]]:
        target, role = "", ""
        while rows := self._catalog.query(_TOLD, version.serial, key, target, role, together):
            yield tuple(Reference(written or target, Role(role)) for target, role, written in rows)
            target, role, _ = rows[-1]

    # --- what follows ---

    def settle(self, version: Version) -> Completeness:
        """Count what the version asks for. `missing` and the others tell of the state that this call found.

        What the globs of the version leave out is not missing.
        """
        with self._catalog.transaction() as db:
            self._reach(db, version)
            db.execute("CREATE TEMP TABLE IF NOT EXISTS absent (key TEXT PRIMARY KEY) WITHOUT ROWID")
            db.execute("DELETE FROM absent")
            there = f"SELECT key FROM blob WHERE version=? AND state<>{MISSING}"
            db.execute(f"INSERT INTO absent SELECT key FROM reached WHERE key NOT IN ({there})", (version.serial,))
            hollow = f"SELECT source FROM remark WHERE version=?1 AND problem='{HOLLOW}' AND {_ASKING}"
            db.execute(f"INSERT OR IGNORE INTO absent {hollow}", (version.serial,))
            if version.globs:
                keeps = keeper(version.globs)
                left_out = [(key,) for key, name in db.execute(_ABSENT, (version.serial,)) if not keeps(name)]
                db.executemany("DELETE FROM absent WHERE key=?", left_out)
        one = self._count
        lost = one(_LOST, version.serial)
        return Completeness(
            referenced=one("reached") + lost,
            missing=one("absent") + lost,
            orphans=one("blob WHERE version=? AND state<2 AND key NOT IN reached", version.serial),
            unfollowed=self._catalog.query(_COUNT + _ASKING, version.serial)[0][0],
        )

    def _count(self, what: str, *values: object) -> int:
        count: int = self._catalog.query(f"SELECT count(*) FROM {what}", *values)[0][0]
        return count

    def missing(self, version: Version) -> Iterator[tuple[str, str, str]]:
        """Each name that is asked for and not there, who asks for it, and what for; after `settle`."""
        yield from self._catalog.query(_MISSING, version.serial)
        sql = f"SELECT detail, {_NAME.format('source')}, '' FROM {_LOST}"
        yield from self._catalog.query(sql, version.serial)

    def leading_away(self, version: Version) -> list[tuple[str, str]]:
        """The files of which viewers of a copy are led elsewhere, each with a sentence; after `settle`."""
        some = f"problem IN {(AWAY, BACK)} AND {_ASKING}"
        sql = f"SELECT {_NAME.format('source')}, detail FROM remark WHERE version=?1 AND {some} ORDER BY source"
        return self._catalog.query(sql, version.serial)

    def is_doubtful(self, version: Version) -> bool:
        """Whether any held file may be broken, or of no use for who asks for it."""
        broken = f"SELECT 1 FROM remark WHERE version=?1 AND problem IN ('{DAMAGED}', '{NEEDS}') LIMIT 1"
        return bool(self._catalog.query(broken, version.serial) or self._catalog.query(_MAY_BE_UNFIT, version.serial))

    def unsound(self, version: Version) -> list[Unsound]:
        """Each held file that is broken, or of no use for who asks for it; after `settle`."""
        broken = f"SELECT source, detail FROM remark WHERE version=? AND problem='{DAMAGED}'"
        with self._catalog.transaction() as db:
            db.execute(_REACHED_TABLE)
            db.execute("CREATE TEMP TABLE IF NOT EXISTS suspect (key TEXT PRIMARY KEY, reason TEXT) WITHOUT ROWID")
        suspects: dict[str, str] = dict(self._catalog.query(_UNFIT, version.serial))
        suspects.update(self._short(version))
        damaged = dict(self._catalog.query(broken, version.serial))
        suspects |= damaged
        if not suspects:
            return []
        with self._catalog.transaction() as db:
            db.execute("DELETE FROM suspect")
            db.executemany("INSERT INTO suspect VALUES (?, ?)", suspects.items())
        found = dict[str, Unsound]()
        for key, reason, name, stated, source, role, asks in self._catalog.query(_UNSOUND, version.serial):
            role = Role.CONTENT if name == ROOT else role or ""  # every viewer asks for the root
            if role == Role.BUFFER and asks == Kind.SUBTREE and key in damaged:
                role = Role.SUBTREE  # it says what there is
            if key not in found or _weight(role) < _weight(found[key].role):
                found[key] = Unsound(name, reason, source or "", role, bool(stated))
        return list(found.values())

    def _short(self, version: Version) -> Iterator[tuple[str, str]]:
        """Buffers that have fewer bytes, once unpacked, than a file says."""
        for name, least in self._catalog.query(_NEEDED, version.serial):
            for key, size in self._catalog.query(_SIZE, version.serial, self._catalog.key(name)):
                if size is not None and size < least:
                    yield key, f"it has {size:,} bytes, and is to have {least:,}"

    def askers(self, version: Version, names: Sequence[str]) -> dict[str, str]:
        """Who asks for each of some files, where anyone does."""
        keys = {self._catalog.key(name): name for name in names}
        with self._catalog.transaction() as db:
            db.execute("CREATE TEMP TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY) WITHOUT ROWID")
            db.execute("DELETE FROM about")
            db.executemany("INSERT INTO about VALUES (?)", ((key,) for key in keys))
        asked = "SELECT target, min(source) AS source FROM reference WHERE version=?1 AND target IN about"
        sql = f"SELECT target, {_NAME.format('source')} FROM ({asked} GROUP BY target)"
        return {keys[key]: source for key, source in self._catalog.query(sql, version.serial)}

    def remarks(self, version: Version) -> Iterator[tuple[str, Remark]]:
        """Every file with what is to be said of it; contents that are no tiles among them."""
        name = _NAME.format("source")
        sql = f"SELECT {name}, problem, detail FROM remark WHERE version=?1 AND problem NOT IN {UNTOLD}"
        for source, problem, detail in self._catalog.query(f"{sql} ORDER BY problem, source", version.serial):
            yield source, Remark(problem, detail)
        kinds = ", ".join(f"'{kind}'" for kind in _NO_TILES)
        sql = (
            "SELECT DISTINCT coalesce(b.name, b.key), b.kind FROM reference r"
            " JOIN blob b ON b.version=r.version AND b.key=r.target"
            f" WHERE r.version=? AND r.role IN ('{Role.CONTENT}', '{Role.MODEL}') AND b.state=1 AND b.kind IN ({kinds})"
            f" AND NOT EXISTS (SELECT 1 FROM remark t WHERE t.version=r.version AND t.source=b.key"
            f" AND t.problem IN {(DAMAGED, HOLLOW)}) ORDER BY 1"
        )
        for key, kind in self._catalog.query(sql, version.serial):
            is_empty = kind == Kind.EMPTY
            what = "is empty" if is_empty else f"is {kind or 'of a kind'} that no viewer is known to show"
            yield key, Remark("empty content" if is_empty else "unknown content", what)

    def between_tilesets(self, version: Version) -> list[tuple[str, str]]:
        """Which tileset asks for which."""
        sql = (
            "SELECT coalesce(s.name, s.key), coalesce(t.name, t.key) FROM reference r"
            " JOIN blob s ON s.version=r.version AND s.key=r.source"
            " JOIN blob t ON t.version=r.version AND t.key=r.target"
            " WHERE r.version=? AND r.role='content' AND s.kind='tileset' AND t.kind='tileset'"
        )
        return self._catalog.query(sql, version.serial)


def _weight(role: str) -> int:
    """How much is lost without a file of that role; the less, the more."""
    return _WEIGHT.index(Role(role)) if role in _WEIGHT else len(_WEIGHT) + (not role)
