"""Which file of a version asks for which, as the verified bytes said, and what follows from it: a query each."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tilesync.catalog.schema import MISSING
from tilesync.core.filters import glob_matcher
from tilesync.model import ROOT, Completeness, DamagedFile, Diagnostic, Kind, ParsedContent, Reference, Role, Version
from tilesync.model.tiles import (
    ABSOLUTE_URL,
    DAMAGED,
    EMPTY_TILE,
    REQUIRED_BUFFER_BYTES,
    ROOT_LEADS_AWAY,
    UNFOLLOWED,
    UNPACKED_BYTES,
    URIS_ELSEWHERE_PHRASE,
)

if TYPE_CHECKING:
    from tilesync.catalog.catalog import SqliteCatalog

REFERENCE_SCHEMA = """
CREATE TABLE IF NOT EXISTS reference (version INTEGER NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL,
  role TEXT NOT NULL, name TEXT, grown INTEGER NOT NULL, PRIMARY KEY (version, source, target, role)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS remark (version INTEGER NOT NULL, source TEXT NOT NULL, problem TEXT NOT NULL,
  detail TEXT NOT NULL, grown INTEGER NOT NULL, PRIMARY KEY (version, source, problem, detail)) WITHOUT ROWID;
"""
"""`source` and `target` are keys of blobs; `name` is the target's where the key is another. `grown`: it is not the file
itself that says so, but the file as it is read together with others (templates, schema, buffers), which may change.
"""

_COUNT_UNFOLLOWED = f"""
SELECT coalesce(sum(iif(instr(detail, '{URIS_ELSEWHERE_PHRASE}'), max(1, CAST(detail AS INTEGER)), 1)), 0) FROM remark
  WHERE version=?1 AND problem IN {(UNFOLLOWED, ROOT_LEADS_AWAY, ABSOLUTE_URL)} AND """
"""How many URIs remarks are about."""

UNSATISFIABLE_PROBLEMS = ("unsafe name", "unreadable")
"""Remarks that say that something is asked for which no copy can hold."""

INTERNAL_PROBLEMS = (*UNSATISFIABLE_PROBLEMS, DAMAGED, EMPTY_TILE, REQUIRED_BUFFER_BYTES, UNPACKED_BYTES)
"""Remarks that are told otherwise, where what they mean depends on other files."""

_NON_TILE_KINDS = (Kind.NONE, Kind.EMPTY, Kind.JSON, Kind.SCHEMA, Kind.SUBTREE, Kind.IMAGE)

_CREATE_REACHED = "CREATE TEMP TABLE IF NOT EXISTS reached (key TEXT PRIMARY KEY) WITHOUT ROWID"
_INSERT_REACHED = """
INSERT OR IGNORE INTO reached WITH RECURSIVE found(key) AS (
  VALUES (?2) UNION SELECT r.target FROM found CROSS JOIN blob b ON b.version=?1 AND b.key=found.key AND b.state=1
  CROSS JOIN reference r ON r.version=?1 AND r.source=b.key) SELECT key FROM found
"""
"""Only what is held asks for something: the bytes of what was held once, or was read in part, do not count."""

_NAME_BY_KEY = "coalesce((SELECT coalesce(b.name, b.key) FROM blob b WHERE b.version=?1 AND b.key={0}), {0})"
"""The name that stands behind a key."""

_IS_REACHED_SOURCE = """source IN reached
  AND EXISTS (SELECT 1 FROM blob held WHERE held.version=?1 AND held.key=source AND held.state=1)"""
_SELECT_ABSENT = """
SELECT DISTINCT r.target, coalesce(r.name, r.target) FROM reference r CROSS JOIN absent ON absent.key=r.target
  WHERE r.version=?
"""
_SELECT_MISSING = f"""
SELECT name, {_NAME_BY_KEY.format("source")}, role FROM (
  SELECT coalesce(r.name, r.target) AS name, min(r.source) AS source, r.role AS role
  FROM reference r CROSS JOIN absent ON absent.key=r.target
  WHERE r.version=?1 AND r.{_IS_REACHED_SOURCE} GROUP BY r.target) ORDER BY name
"""
_SELECT_KINDS = """
SELECT key, kind, implicit,
  EXISTS (SELECT 1 FROM reference r WHERE r.version=blob.version AND r.source=blob.key AND r.grown=0),
  EXISTS (SELECT 1 FROM remark r WHERE r.version=blob.version AND r.source=blob.key AND r.grown=0)
  FROM blob WHERE version=? AND key IN ({})
"""
_KEYS_PER_QUERY = 500
_SELECT_DIAGNOSTICS = "SELECT problem, detail FROM remark WHERE version=? AND source=? AND grown=0"
_SELECT_REFERENCES = """
SELECT target, role, name FROM reference WHERE version=? AND source=? AND (target, role) > (?, ?) AND grown=0
  ORDER BY target, role LIMIT ?
"""
_ROLES_BY_IMPORTANCE = (Role.CONTENT, Role.SUBTREE, Role.SCHEMA, Role.MODEL)
"""Roles without which something is lost, in this order; then any other."""

_NON_IMAGE_KINDS = ", ".join(f"'{kind}'" for kind in Kind if kind not in {Kind.IMAGE, Kind.NONE, Kind.EMPTY})
_NON_SCHEMA_KINDS = ", ".join(
    f"'{kind}'" for kind in Kind if kind not in {Kind.JSON, Kind.SCHEMA, Kind.TILESET, Kind.GLTF, Kind.GEOJSON}
)
_FROM_WRONG_KIND = f"""
  FROM reference r CROSS JOIN blob b ON b.version=r.version AND b.key=r.target AND b.state=1
  WHERE r.version=?1 AND r.role IN ('{Role.IMAGE}', '{Role.SCHEMA}', '{Role.SHADER}')
    AND (r.role='{Role.IMAGE}' AND b.kind IN ({_NON_IMAGE_KINDS}, '{Kind.EMPTY}')
      OR r.role='{Role.SCHEMA}' AND b.kind IN ({_NON_SCHEMA_KINDS})
      OR r.role='{Role.SHADER}' AND b.kind='{Kind.EMPTY}')
"""
_COUNT_ANNOUNCED = "SELECT count(DISTINCT target) FROM reference WHERE version=? AND grown=1"
_SELECT_ANNOUNCED_ABSENT = f"""
SELECT DISTINCT r.target, coalesce(r.name, r.target) FROM reference r WHERE r.version=?1 AND r.grown=1
  AND NOT EXISTS (SELECT 1 FROM blob b WHERE b.version=?1 AND b.key=r.target AND b.state<>{MISSING})
"""
_SELECT_WRONG_KIND = f"""
SELECT DISTINCT b.key, CASE WHEN b.kind='{Kind.EMPTY}' THEN 'it is empty'
  WHEN r.role='{Role.IMAGE}' THEN 'it holds ' || b.kind || ', no image' ELSE 'it holds no schema' END
  {_FROM_WRONG_KIND} AND r.{_IS_REACHED_SOURCE}
"""
_HAS_WRONG_KIND = f"SELECT 1 {_FROM_WRONG_KIND} LIMIT 1"
_SELECT_REQUIRED_SIZES = f"""
SELECT substr(detail, instr(detail, ' ') + 1), max(CAST(detail AS INTEGER)) FROM remark
  WHERE version=?1 AND problem='{REQUIRED_BUFFER_BYTES}' AND {_IS_REACHED_SOURCE} GROUP BY 1
"""
_SELECT_SIZE = f"""
SELECT key, coalesce(lying_size, (SELECT CAST(detail AS INTEGER) FROM remark r
    WHERE r.version=b.version AND r.source=b.key AND problem='{UNPACKED_BYTES}'),
  CASE WHEN coalesce(content_encoding, '') IN ('', 'identity') THEN size END)
  FROM blob b WHERE version=? AND key=? AND state=1
"""
_SELECT_DAMAGED = f"""
SELECT key, reason, coalesce(name, key), md5 IS NOT NULL, source, role, asks FROM suspect
  JOIN blob b USING (key) LEFT JOIN (SELECT target, {_NAME_BY_KEY.format("r.source")} AS source, role,
    (SELECT kind FROM blob s WHERE s.version=?1 AND s.key=r.source) AS asks FROM reference r
    CROSS JOIN suspect ON suspect.key=r.target WHERE r.version=?1 AND r.{_IS_REACHED_SOURCE}) ON target=key
  WHERE b.version=?1 AND b.state=1 ORDER BY key, source
"""
_FROM_UNSATISFIABLE = f"remark WHERE version=?1 AND problem IN {UNSATISFIABLE_PROBLEMS} AND {_IS_REACHED_SOURCE}"


class References:
    """The references of the versions of a catalog."""

    def __init__(self, catalog: SqliteCatalog) -> None:
        self._catalog = catalog

    def write(
        self,
        db: sqlite3.Connection,
        version: Version,
        contents: Sequence[tuple[str, ParsedContent]],
        *,
        derived: bool = False,
    ) -> None:
        """Take in what some files ask for, within a transaction, beside what was said of them before."""
        keyed = [(version.serial, self._catalog.key(source), reading) for source, reading in contents]
        asked = ((*who, *self._target_columns(each), derived) for *who, reading in keyed for each in reading.references)
        db.executemany("INSERT OR IGNORE INTO reference VALUES (?, ?, ?, ?, ?, ?)", asked)
        remarks = (
            (*who, each.problem, each.detail, derived) for *who, reading in keyed for each in reading.diagnostics
        )
        db.executemany("INSERT OR IGNORE INTO remark VALUES (?, ?, ?, ?, ?)", remarks)

    def _target_columns(self, reference: Reference) -> tuple[str, str, str | None]:
        key = self._catalog.key(reference.target)
        return key, reference.role.value, None if key == reference.target else reference.target

    def delete(
        self, db: sqlite3.Connection, version: Version, sources: Iterable[str], *, derived: bool = False
    ) -> None:
        """Forget what some files ask for, within a transaction; `grown`: only what following said of them."""
        keys = [(version.serial, self._catalog.key(source)) for source in sources]
        more = " AND grown=1" if derived else ""
        for table in ("reference", "remark"):
            db.executemany(f"DELETE FROM {table} WHERE version=? AND source=?{more}", keys)

    def add(
        self,
        version: Version,
        source: str,
        reading: ParsedContent,
        *,
        replace_existing: bool = False,
        derived: bool = False,
    ) -> None:
        """Take in a part of what one file asks for; `anew`: what was said before of it is void.

        `grown`: it asks for that when it is read together with others. `anew` then voids what that said before; it is
        void, too, when the file itself comes anew.
        """
        with self._catalog.transaction() as db:
            if replace_existing:
                self.delete(db, version, [source], derived=derived)
            self.write(db, version, [(source, reading)], derived=derived)

    def list_targets(self, version: Version, source: str, role: Role) -> list[str]:
        """What one file asks for in one role."""
        sql = "SELECT coalesce(name, target) FROM reference WHERE version=? AND source=? AND role=?"
        return [row[0] for row in self._catalog.query(sql, version.serial, self._catalog.key(source), role)]

    def list_implicit_tilesets(self, version: Version, *, only_reached: bool = False) -> list[str]:
        """The held tilesets with implicit tiling; `reached`: those that the root leads to, as far as is known."""
        if only_reached:
            with self._catalog.transaction() as db:
                self._mark_reached(db, version)
        sql = f"""SELECT coalesce(name, key) FROM blob WHERE version=? AND implicit=1 AND state=1
          {"AND key IN reached" if only_reached else ""} ORDER BY key"""
        return [row[0] for row in self._catalog.query(sql, version.serial)]

    def _mark_reached(self, db: sqlite3.Connection, version: Version) -> None:
        """Note what the root leads to, itself among it, within a transaction."""
        db.execute(_CREATE_REACHED)
        db.execute("DELETE FROM reached")
        db.execute(_INSERT_REACHED, (version.serial, self._catalog.key(ROOT)))

    def count_announced(self, version: Version) -> tuple[int, int]:
        """How many files subtrees announce, and how many of them are not there, or are not known to be."""
        count: int = self._catalog.query(_COUNT_ANNOUNCED, version.serial)[0][0]
        if not version.globs:
            return count, self._catalog.query(f"SELECT count(*) FROM ({_SELECT_ANNOUNCED_ABSENT})", version.serial)[0][
                0
            ]
        keeps = glob_matcher(version.globs)
        return count, sum(keeps(name) for _, name in self._catalog.query(_SELECT_ANNOUNCED_ABSENT, version.serial))

    def read_contents(
        self, version: Version, names: Sequence[str], *, references_per_part: int
    ) -> Iterator[tuple[str, ParsedContent]]:
        """What each of some held files says by itself; of one that says much, one part behind the other."""
        keys = {self._catalog.key(name): name for name in names}
        rows = list[tuple[str, str, int, int, int]]()
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            some = list(keys)[start : start + _KEYS_PER_QUERY]
            rows += self._catalog.query(_SELECT_KINDS.format(", ".join("?" * len(some))), version.serial, *some)
        kinds = {row[0]: row[1:] for row in rows}
        for key, name in keys.items():
            kind, implicit, asks, remarked = kinds[key]
            reading = ParsedContent(Kind(kind), has_implicit_tiling=bool(implicit))
            if remarked:
                found = self._catalog.query(_SELECT_DIAGNOSTICS, version.serial, key)
                reading = reading._replace(diagnostics=tuple(Diagnostic(*row) for row in found))
            if not asks:
                yield name, reading
                continue
            for references in self._read_references(version, key, references_per_part):
                yield name, reading._replace(references=references)
                reading = reading._replace(diagnostics=())

    def _read_references(self, version: Version, key: str, references_per_part: int) -> Iterator[tuple[Reference, ...]]:
        target, role = "", ""
        while rows := self._catalog.query(_SELECT_REFERENCES, version.serial, key, target, role, references_per_part):
            yield tuple(Reference(written or target, Role(role)) for target, role, written in rows)
            target, role, _ = rows[-1]

    # --- what follows ---

    def compute_completeness(self, version: Version) -> Completeness:
        """Count what the version asks for. `missing` and the others tell of the state that this call found.

        What the globs of the version leave out is not missing.
        """
        with self._catalog.transaction() as db:
            self._mark_reached(db, version)
            db.execute("CREATE TEMP TABLE IF NOT EXISTS absent (key TEXT PRIMARY KEY) WITHOUT ROWID")
            db.execute("DELETE FROM absent")
            there = f"SELECT key FROM blob WHERE version=? AND state<>{MISSING}"
            db.execute(f"INSERT INTO absent SELECT key FROM reached WHERE key NOT IN ({there})", (version.serial,))
            hollow = f"SELECT source FROM remark WHERE version=?1 AND problem='{EMPTY_TILE}' AND {_IS_REACHED_SOURCE}"
            db.execute(f"INSERT OR IGNORE INTO absent {hollow}", (version.serial,))
            if version.globs:
                keeps = glob_matcher(version.globs)
                left_out = [(key,) for key, name in db.execute(_SELECT_ABSENT, (version.serial,)) if not keeps(name)]
                db.executemany("DELETE FROM absent WHERE key=?", left_out)
        one = self._count
        lost = one(_FROM_UNSATISFIABLE, version.serial)
        return Completeness(
            referenced=one("reached") + lost,
            missing=one("absent") + lost,
            orphans=one("blob WHERE version=? AND state<2 AND key NOT IN reached", version.serial),
            unfollowed=self._catalog.query(_COUNT_UNFOLLOWED + _IS_REACHED_SOURCE, version.serial)[0][0],
        )

    def _count(self, what: str, *values: object) -> int:
        count: int = self._catalog.query(f"SELECT count(*) FROM {what}", *values)[0][0]
        return count

    def list_missing(self, version: Version) -> Iterator[tuple[str, str, str]]:
        """Each name that is asked for and not there, who asks for it, and what for; after `settle`."""
        yield from self._catalog.query(_SELECT_MISSING, version.serial)
        sql = f"SELECT detail, {_NAME_BY_KEY.format('source')}, '' FROM {_FROM_UNSATISFIABLE}"
        yield from self._catalog.query(sql, version.serial)

    def list_leading_elsewhere(self, version: Version) -> list[tuple[str, str]]:
        """The files of which viewers of a copy are led elsewhere, each with a sentence; after `settle`."""
        some = f"problem IN {(ROOT_LEADS_AWAY, ABSOLUTE_URL)} AND {_IS_REACHED_SOURCE}"
        sql = f"SELECT {_NAME_BY_KEY.format('source')}, detail FROM remark WHERE version=?1 AND {some} ORDER BY source"
        return self._catalog.query(sql, version.serial)

    def has_suspect_files(self, version: Version) -> bool:
        """Whether any held file may be broken, or of no use for who asks for it."""
        broken = (
            f"SELECT 1 FROM remark WHERE version=?1 AND problem IN ('{DAMAGED}', '{REQUIRED_BUFFER_BYTES}') LIMIT 1"
        )
        return bool(self._catalog.query(broken, version.serial) or self._catalog.query(_HAS_WRONG_KIND, version.serial))

    def list_damaged(self, version: Version) -> list[DamagedFile]:
        """Each held file that is broken, or of no use for who asks for it; after `settle`."""
        broken = f"SELECT source, detail FROM remark WHERE version=? AND problem='{DAMAGED}'"
        with self._catalog.transaction() as db:
            db.execute(_CREATE_REACHED)
            db.execute("CREATE TEMP TABLE IF NOT EXISTS suspect (key TEXT PRIMARY KEY, reason TEXT) WITHOUT ROWID")
        suspects: dict[str, str] = dict(self._catalog.query(_SELECT_WRONG_KIND, version.serial))
        suspects.update(self._find_short_buffers(version))
        damaged = dict(self._catalog.query(broken, version.serial))
        suspects |= damaged
        if not suspects:
            return []
        with self._catalog.transaction() as db:
            db.execute("DELETE FROM suspect")
            db.executemany("INSERT INTO suspect VALUES (?, ?)", suspects.items())
        found = dict[str, DamagedFile]()
        for key, reason, name, stated, source, role, asks in self._catalog.query(_SELECT_DAMAGED, version.serial):
            role = Role.CONTENT if name == ROOT else role or ""  # every viewer asks for the root
            if role == Role.BUFFER and asks == Kind.SUBTREE and key in damaged:
                role = Role.SUBTREE  # it says what there is
            if key not in found or _rank_role(role) < _rank_role(found[key].role):
                found[key] = DamagedFile(name, reason, source or "", role, bool(stated))
        return list(found.values())

    def _find_short_buffers(self, version: Version) -> Iterator[tuple[str, str]]:
        """Buffers that have fewer bytes, once unpacked, than a file says."""
        for name, least in self._catalog.query(_SELECT_REQUIRED_SIZES, version.serial):
            for key, size in self._catalog.query(_SELECT_SIZE, version.serial, self._catalog.key(name)):
                if size is not None and size < least:
                    yield key, f"it has {size:,} bytes, and is to have {least:,}"

    def find_referrers(self, version: Version, names: Sequence[str]) -> dict[str, str]:
        """Who asks for each of some files, where anyone does."""
        keys = {self._catalog.key(name): name for name in names}
        with self._catalog.transaction() as db:
            db.execute("CREATE TEMP TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY) WITHOUT ROWID")
            db.execute("DELETE FROM about")
            db.executemany("INSERT INTO about VALUES (?)", ((key,) for key in keys))
        asked = "SELECT target, min(source) AS source FROM reference WHERE version=?1 AND target IN about"
        sql = f"SELECT target, {_NAME_BY_KEY.format('source')} FROM ({asked} GROUP BY target)"
        return {keys[key]: source for key, source in self._catalog.query(sql, version.serial)}

    def list_diagnostics(self, version: Version) -> Iterator[tuple[str, Diagnostic]]:
        """Every file with what is to be said of it; contents that are no tiles among them."""
        name = _NAME_BY_KEY.format("source")
        sql = f"SELECT {name}, problem, detail FROM remark WHERE version=?1 AND problem NOT IN {INTERNAL_PROBLEMS}"
        for source, problem, detail in self._catalog.query(f"{sql} ORDER BY problem, source", version.serial):
            yield source, Diagnostic(problem, detail)
        kinds = ", ".join(f"'{kind}'" for kind in _NON_TILE_KINDS)
        sql = (
            "SELECT DISTINCT coalesce(b.name, b.key), b.kind FROM reference r"
            " JOIN blob b ON b.version=r.version AND b.key=r.target"
            f" WHERE r.version=? AND r.role IN ('{Role.CONTENT}', '{Role.MODEL}') AND b.state=1 AND b.kind IN ({kinds})"
            f" AND NOT EXISTS (SELECT 1 FROM remark t WHERE t.version=r.version AND t.source=b.key"
            f" AND t.problem IN {(DAMAGED, EMPTY_TILE)}) ORDER BY 1"
        )
        for key, kind in self._catalog.query(sql, version.serial):
            is_empty = kind == Kind.EMPTY
            what = "is empty" if is_empty else f"is {kind or 'of a kind'} that no viewer is known to show"
            yield key, Diagnostic("empty content" if is_empty else "unknown content", what)

    def list_tileset_references(self, version: Version) -> list[tuple[str, str]]:
        """Which tileset asks for which."""
        sql = (
            "SELECT coalesce(s.name, s.key), coalesce(t.name, t.key) FROM reference r"
            " JOIN blob s ON s.version=r.version AND s.key=r.source"
            " JOIN blob t ON t.version=r.version AND t.key=r.target"
            " WHERE r.version=? AND r.role='content' AND s.kind='tileset' AND t.kind='tileset'"
        )
        return self._catalog.query(sql, version.serial)


def _rank_role(role: str) -> int:
    """How much is lost without a file of that role; the less, the more."""
    return (
        _ROLES_BY_IMPORTANCE.index(Role(role))
        if role in _ROLES_BY_IMPORTANCE
        else len(_ROLES_BY_IMPORTANCE) + (not role)
    )
