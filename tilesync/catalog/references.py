"""Reference index: which file of a version references which, read from verified bytes, and queries on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from tilesync.catalog.schema import MISSING, CatalogDatabase
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

_COUNT_UNFOLLOWED = f"""
SELECT coalesce(sum(iif(instr(detail, '{URIS_ELSEWHERE_PHRASE}'), max(1, CAST(detail AS INTEGER)), 1)), 0) FROM remark
  WHERE version=?1 AND problem IN {(UNFOLLOWED, ROOT_LEADS_AWAY, ABSOLUTE_URL)} AND """
"""Counts the URIs that diagnostics are about: one diagnostic may stand for many URIs."""

UNSATISFIABLE_PROBLEMS = ("unsafe name", "unreadable")
"""Problems that mean a reference to a file that no copy can hold."""

INTERNAL_PROBLEMS = (*UNSATISFIABLE_PROBLEMS, DAMAGED, EMPTY_TILE, REQUIRED_BUFFER_BYTES, UNPACKED_BYTES)
"""Problems that `list_diagnostics` leaves out: their meaning depends on other files."""

_NON_TILE_KINDS = (Kind.NONE, Kind.EMPTY, Kind.JSON, Kind.SCHEMA, Kind.SUBTREE, Kind.IMAGE)

_CREATE_REACHED = "CREATE TEMP TABLE IF NOT EXISTS reached (key TEXT PRIMARY KEY) WITHOUT ROWID"
_TARGETS_OF_REFERRERS = """
SELECT r.target FROM referrer CROSS JOIN blob b ON b.version=?1 AND b.key=referrer.key AND b.state=1
  CROSS JOIN reference r ON r.version=?1 AND r.source=b.key
"""
"""Only files that are stored now (`state=1`) count as sources. Others may still have references from earlier."""

_INSERT_REACHED = f"""
INSERT OR IGNORE INTO reached WITH RECURSIVE referrer(key) AS (
  VALUES (?2) UNION {_TARGETS_OF_REFERRERS} WHERE EXISTS (
    SELECT 1 FROM reference further WHERE further.version=?1 AND further.source=r.target))
SELECT ?2 UNION ALL {_TARGETS_OF_REFERRERS}
"""
"""Only files with references are followed: most files are leaves, which cost a third of the time like that."""

_NAME_BY_KEY = "coalesce((SELECT coalesce(b.name, b.key) FROM blob b WHERE b.version=?1 AND b.key={0}), {0})"
"""The name of the file with a key."""

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
"""Roles whose files a viewer cannot do without, most important first; all other roles follow."""

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
_SELECT_TILESET_REFERENCES = f"""
WITH tileset AS MATERIALIZED (
  SELECT key, coalesce(name, key) AS name FROM blob WHERE version=?1 AND kind='{Kind.TILESET}')
SELECT s.name, t.name FROM tileset s JOIN reference r ON r.version=?1 AND r.source=s.key AND r.role='{Role.CONTENT}'
  JOIN tileset t ON t.key=r.target
"""
_FROM_UNSATISFIABLE = f"remark WHERE version=?1 AND problem IN {UNSATISFIABLE_PROBLEMS} AND {_IS_REACHED_SOURCE}"


class ReferenceIndex:
    """Index of references between the files of a version, with their diagnostics. Any thread may use it."""

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def write(
        self,
        db: sqlite3.Connection,
        version: Version,
        contents: Sequence[tuple[str, ParsedContent]],
        *,
        derived: bool = False,
    ) -> None:
        """Add references and diagnostics of files to the known ones, within a transaction."""
        keyed = [(version.serial, self._database.key(source), content) for source, content in contents]
        references = (
            (*source_columns, *self._target_columns(item), derived)
            for *source_columns, content in keyed
            for item in content.references
        )
        db.executemany("INSERT OR IGNORE INTO reference VALUES (?, ?, ?, ?, ?, ?)", references)
        diagnostics = (
            (*source_columns, item.problem, item.detail, derived)
            for *source_columns, content in keyed
            for item in content.diagnostics
        )
        db.executemany("INSERT OR IGNORE INTO remark VALUES (?, ?, ?, ?, ?)", diagnostics)

    def _target_columns(self, reference: Reference) -> tuple[str, str, str | None]:
        key = self._database.key(reference.target)
        return key, reference.role.value, None if key == reference.target else reference.target

    def delete(
        self, db: sqlite3.Connection, version: Version, sources: Iterable[str], *, derived: bool = False
    ) -> None:
        """Delete references and diagnostics of files, within a transaction; `derived`: only the derived ones."""
        keys = [(version.serial, self._database.key(source)) for source in sources]
        derived_filter = " AND grown=1" if derived else ""
        for table in ("reference", "remark"):
            db.executemany(f"DELETE FROM {table} WHERE version=? AND source=?{derived_filter}", keys)

    def add(
        self,
        version: Version,
        source: str,
        content: ParsedContent,
        *,
        replace_existing: bool = False,
        derived: bool = False,
    ) -> None:
        """Add part of the references of one file; `replace_existing` deletes the known ones first.

        `derived`: the file has these references only when read together with others. `replace_existing` then deletes
        only derived ones. New bytes of the file itself delete derived ones too.
        """
        with self._database.transaction() as db:
            if replace_existing:
                self.delete(db, version, [source], derived=derived)
            self.write(db, version, [(source, content)], derived=derived)

    def list_targets(self, version: Version, source: str, role: Role) -> list[str]:
        """List the files that one file references in one role."""
        sql = "SELECT coalesce(name, target) FROM reference WHERE version=? AND source=? AND role=?"
        return [row[0] for row in self._database.query(sql, version.serial, self._database.key(source), role)]

    def list_implicit_tilesets(self, version: Version, *, only_reached: bool = False) -> list[str]:
        """List stored tilesets with implicit tiling; `only_reached`: only those known to be reachable from the root."""
        if only_reached:
            with self._database.transaction() as db:
                self._mark_reached(db, version)
        sql = f"""SELECT coalesce(name, key) FROM blob WHERE version=? AND implicit=1 AND state=1
          {"AND key IN reached" if only_reached else ""} ORDER BY key"""
        return [row[0] for row in self._database.query(sql, version.serial)]

    def _mark_reached(self, db: sqlite3.Connection, version: Version) -> None:
        """Fill the temporary table `reached` with all that the root reaches, itself included, within a transaction."""
        db.execute(_CREATE_REACHED)
        db.execute("DELETE FROM reached")
        db.execute(_INSERT_REACHED, (version.serial, self._database.key(ROOT)))

    def count_announced(self, version: Version) -> tuple[int, int]:
        """Count the files that subtrees announce, and how many of these are absent or not known to exist."""
        count: int = self._database.query(_COUNT_ANNOUNCED, version.serial)[0][0]
        if not version.globs:
            return count, self._database.query(f"SELECT count(*) FROM ({_SELECT_ANNOUNCED_ABSENT})", version.serial)[0][
                0
            ]
        is_included = glob_matcher(version.globs)
        return count, sum(
            is_included(name) for _, name in self._database.query(_SELECT_ANNOUNCED_ABSENT, version.serial)
        )

    def read_contents(
        self, version: Version, names: Sequence[str], *, references_per_part: int
    ) -> Iterator[tuple[str, ParsedContent]]:
        """Read the parsed content of stored files, without derived references.

        A file with many references comes in several parts, one after the other.
        """
        keys = {self._database.key(name): name for name in names}
        rows = list[tuple[str, str, int, int, int]]()
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            batch = list(keys)[start : start + _KEYS_PER_QUERY]
            rows += self._database.query(_SELECT_KINDS.format(", ".join("?" * len(batch))), version.serial, *batch)
        kinds = {row[0]: row[1:] for row in rows}
        for key, name in keys.items():
            kind, implicit, has_references, has_diagnostics = kinds[key]
            content = ParsedContent(Kind(kind), has_implicit_tiling=bool(implicit))
            if has_diagnostics:
                found = self._database.query(_SELECT_DIAGNOSTICS, version.serial, key)
                content = content._replace(diagnostics=tuple(Diagnostic(*row) for row in found))
            if not has_references:
                yield name, content
                continue
            for references in self._read_references(version, key, references_per_part):
                yield name, content._replace(references=references)
                content = content._replace(diagnostics=())

    def _read_references(self, version: Version, key: str, references_per_part: int) -> Iterator[tuple[Reference, ...]]:
        target, role = "", ""
        while rows := self._database.query(_SELECT_REFERENCES, version.serial, key, target, role, references_per_part):
            yield tuple(Reference(name or target, Role(role)) for target, role, name in rows)
            target, role, _ = rows[-1]

    # --- queries ---

    def compute_completeness(self, version: Version) -> Completeness:
        """Count what the version references. The `list_` methods below use the state that this call found.

        Files that the globs of the version leave out do not count as missing.
        """
        with self._database.transaction() as db:
            self._mark_reached(db, version)
            db.execute("CREATE TEMP TABLE IF NOT EXISTS absent (key TEXT PRIMARY KEY) WITHOUT ROWID")
            db.execute("DELETE FROM absent")
            present = f"SELECT key FROM blob WHERE version=? AND state<>{MISSING}"
            db.execute(f"INSERT INTO absent SELECT key FROM reached WHERE key NOT IN ({present})", (version.serial,))
            empty_tiles = (
                f"SELECT source FROM remark WHERE version=?1 AND problem='{EMPTY_TILE}' AND {_IS_REACHED_SOURCE}"
            )
            db.execute(f"INSERT OR IGNORE INTO absent {empty_tiles}", (version.serial,))
            if version.globs:
                is_included = glob_matcher(version.globs)
                excluded = [
                    (key,) for key, name in db.execute(_SELECT_ABSENT, (version.serial,)) if not is_included(name)
                ]
                db.executemany("DELETE FROM absent WHERE key=?", excluded)
        count = self._count
        unsatisfiable = count(_FROM_UNSATISFIABLE, version.serial)
        return Completeness(
            referenced=count("reached") + unsatisfiable,
            missing=count("absent") + unsatisfiable,
            orphans=count("blob WHERE version=? AND state<2 AND key NOT IN reached", version.serial),
            unfollowed=self._database.query(_COUNT_UNFOLLOWED + _IS_REACHED_SOURCE, version.serial)[0][0],
        )

    def _count(self, what: str, *values: object) -> int:
        count: int = self._database.query(f"SELECT count(*) FROM {what}", *values)[0][0]
        return count

    def list_missing(self, version: Version) -> Iterator[tuple[str, str, str]]:
        """List each missing name with a file that references it and the role; call `compute_completeness` first."""
        yield from self._database.query(_SELECT_MISSING, version.serial)
        sql = f"SELECT detail, {_NAME_BY_KEY.format('source')}, '' FROM {_FROM_UNSATISFIABLE}"
        yield from self._database.query(sql, version.serial)

    def list_leading_elsewhere(self, version: Version) -> list[tuple[str, str]]:
        """List files that lead viewers of a copy elsewhere, each with a sentence; call `compute_completeness` first."""
        leads_elsewhere = f"problem IN {(ROOT_LEADS_AWAY, ABSOLUTE_URL)} AND {_IS_REACHED_SOURCE}"
        sql = (
            f"SELECT {_NAME_BY_KEY.format('source')}, detail FROM remark"
            f" WHERE version=?1 AND {leads_elsewhere} ORDER BY source"
        )
        return self._database.query(sql, version.serial)

    def has_suspect_files(self, version: Version) -> bool:
        """Return whether any stored file may be damaged, or unusable for a file that references it."""
        broken = (
            f"SELECT 1 FROM remark WHERE version=?1 AND problem IN ('{DAMAGED}', '{REQUIRED_BUFFER_BYTES}') LIMIT 1"
        )
        return bool(
            self._database.query(broken, version.serial) or self._database.query(_HAS_WRONG_KIND, version.serial)
        )

    def list_damaged(self, version: Version) -> list[DamagedFile]:
        """List stored files that are damaged, or unusable for their referrer; call `compute_completeness` first."""
        if not self.has_suspect_files(version):
            return []
        select_damaged = f"SELECT source, detail FROM remark WHERE version=? AND problem='{DAMAGED}'"
        with self._database.transaction() as db:
            db.execute(_CREATE_REACHED)
            db.execute("CREATE TEMP TABLE IF NOT EXISTS suspect (key TEXT PRIMARY KEY, reason TEXT) WITHOUT ROWID")
        suspects: dict[str, str] = dict(self._database.query(_SELECT_WRONG_KIND, version.serial))
        suspects.update(self._find_short_buffers(version))
        damaged = dict(self._database.query(select_damaged, version.serial))
        suspects |= damaged
        if not suspects:
            return []
        with self._database.transaction() as db:
            db.execute("DELETE FROM suspect")
            db.executemany("INSERT INTO suspect VALUES (?, ?)", suspects.items())
        found = dict[str, DamagedFile]()
        for key, reason, name, has_md5, source, role, source_kind in self._database.query(
            _SELECT_DAMAGED, version.serial
        ):
            role = Role.CONTENT if name == ROOT else role or ""  # every viewer loads the root
            if role == Role.BUFFER and source_kind == Kind.SUBTREE and key in damaged:
                role = Role.SUBTREE  # viewers cannot use a subtree without its buffer
            if key not in found or _rank_role(role) < _rank_role(found[key].role):
                found[key] = DamagedFile(name, reason, source or "", role, bool(has_md5))
        return list(found.values())

    def _find_short_buffers(self, version: Version) -> Iterator[tuple[str, str]]:
        """Find buffers that have fewer unpacked bytes than a file requires."""
        for name, required in self._database.query(_SELECT_REQUIRED_SIZES, version.serial):
            for key, size in self._database.query(_SELECT_SIZE, version.serial, self._database.key(name)):
                if size is not None and size < required:
                    yield key, f"it has {size:,} bytes, but {required:,} are required"

    def find_referrers(self, version: Version, names: Sequence[str]) -> dict[str, str]:
        """Find one referrer of each of these files, where there is one."""
        keys = {self._database.key(name): name for name in names}
        with self._database.transaction() as db:
            db.execute("CREATE TEMP TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY) WITHOUT ROWID")
            db.execute("DELETE FROM about")
            db.executemany("INSERT INTO about VALUES (?)", ((key,) for key in keys))
        first_referrer = "SELECT target, min(source) AS source FROM reference WHERE version=?1 AND target IN about"
        sql = f"SELECT target, {_NAME_BY_KEY.format('source')} FROM ({first_referrer} GROUP BY target)"
        return {keys[key]: source for key, source in self._database.query(sql, version.serial)}

    def list_diagnostics(self, version: Version) -> Iterator[tuple[str, Diagnostic]]:
        """List each file with its diagnostics, and contents that viewers cannot show."""
        name = _NAME_BY_KEY.format("source")
        sql = f"SELECT {name}, problem, detail FROM remark WHERE version=?1 AND problem NOT IN {INTERNAL_PROBLEMS}"
        for source, problem, detail in self._database.query(f"{sql} ORDER BY problem, source", version.serial):
            yield source, Diagnostic(problem, detail)
        kinds = ", ".join(f"'{kind}'" for kind in _NON_TILE_KINDS)
        sql = (
            "SELECT DISTINCT coalesce(b.name, b.key), b.kind FROM reference r"
            " JOIN blob b ON b.version=r.version AND b.key=r.target"
            f" WHERE r.version=? AND r.role IN ('{Role.CONTENT}', '{Role.MODEL}') AND b.state=1 AND b.kind IN ({kinds})"
            f" AND NOT EXISTS (SELECT 1 FROM remark t WHERE t.version=r.version AND t.source=b.key"
            f" AND t.problem IN {(DAMAGED, EMPTY_TILE)}) ORDER BY 1"
        )
        for key, kind in self._database.query(sql, version.serial):
            is_empty = kind == Kind.EMPTY
            detail = "is empty" if is_empty else f"is {kind or 'of a kind'} that no viewer is known to show"
            yield key, Diagnostic("empty content" if is_empty else "unknown content", detail)

    def list_tileset_references(self, version: Version) -> list[tuple[str, str]]:
        """List pairs of tilesets where the first references the second."""
        return self._database.query(_SELECT_TILESET_REFERENCES, version.serial)


def _rank_role(role: str) -> int:
    """Rank a role by importance; a lower rank means that more is lost without the file."""
    return (
        _ROLES_BY_IMPORTANCE.index(Role(role))
        if role in _ROLES_BY_IMPORTANCE
        else len(_ROLES_BY_IMPORTANCE) + (not role)
    )
