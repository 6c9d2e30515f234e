"""Manifest of a version: make and parse its lines, and find one among millions."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from json.encoder import encode_basestring
from typing import Any, Final

from tilesync import __version__
from tilesync.core.export_record import sanitize_record
from tilesync.core.filters import parse_globs
from tilesync.core.foreign_json import (
    MAX_DOCUMENT_BYTES,
    VALID_EPOCH_SECONDS,
    parse_json,
    read_count,
    read_digest,
    read_mapping,
    read_optional,
    read_or_default,
    read_text,
    read_texts,
    read_timestamp,
)
from tilesync.core.safe_names import make_version_name
from tilesync.errors import DestinationError, UsageError
from tilesync.model import (
    Blob,
    Completeness,
    Content,
    ExportFacts,
    Inventory,
    ListingState,
    StoredFile,
    UnpackedFile,
    Version,
    VersionSummary,
)

UNPROVEN = "none"
"""Proof of a file in a package without a manifest: none. A run computes its SHA-256 while it reads the file."""

MAX_SINGLE_COPY_BYTES = 5000 << 20
"""Maximum bytes of a blob that Azure copies in one request. Source: "Put Blob From URL"."""


def format_timestamp(moment: datetime) -> str:
    """Format a time in UTC, in whole seconds, as ISO 8601."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def make_header(
    version: Version,
    missing: Sequence[str] = (),
    unheld: Sequence[str] = (),
    *,
    damaged: Sequence[str] = (),
    elsewhere: Sequence[str] = (),
) -> dict[str, Any]:
    """Make the first line, which describes the version.

    `export` is the service's own record, reduced to known fields. `container` is the URL of the container without its
    query. `missing_names` are files that are referenced but not in the container. `unheld` has a sentence for each
    reference that no copy can store. `missing` counts both.

    These are written only if they say something. `damaged_names`: stored files that are broken in the container too.
    `elsewhere`: a sentence for each file whose URIs lead viewers of a copy away from it. `content`: files may be stored
    unpacked.
    """
    return {
        "version": version.name,
        "export": sanitize_record(version.facts.record),
        "imodel": version.facts.imodel,
        "changeset": version.facts.changeset,
        "modified": version.facts.modified,
        "files": version.summary.files,
        "bytes": version.summary.bytes,
        "finished": version.summary.published_at,
        "inventory": version.inventory,
        "container": version.container_url,
        "include": list(version.globs.include),
        "exclude": list(version.globs.exclude),
        **({"content": version.content.value} if version.content is not Content.STORED else {}),
        **asdict(version.summary.completeness),
        "missing_names": list(missing),
        "unheld": list(unheld),
        **({"damaged_names": list(damaged)} if damaged else {}),
        **({"elsewhere": list(elsewhere)} if elsewhere else {}),
        "tilesync": __version__,
    }


def make_line(stored: StoredFile) -> dict[str, Any]:
    """Make the line of one file: digests in hexadecimal, times in UTC, null for what the container does not state.

    A file that the storage service copied has no SHA-256; `proof` names the evidence instead. For an unpacked file,
    `size` and `sha256` are those of the unpacked file; `stored` has those of the packed bytes, to which the MD5 and the
    ETag belong.
    """
    blob, unpacked = stored.blob, stored.unpacked
    return {
        "name": blob.name,
        "size": stored.size,
        "sha256": stored.sha256.hex() or None,
        **({} if stored.sha256 else {"proof": _proof_kind(stored)}),
        "md5": blob.md5.hex() if blob.md5 is not None else None,
        "etag": blob.etag,
        "content_type": blob.content_type,
        "content_encoding": blob.content_encoding if unpacked is None else None,
        "last_modified": None if blob.last_modified is None else _format_epoch(blob.last_modified),
        **({} if unpacked is None else {"stored": _stored_fields(blob, unpacked)}),
    }


_LINE_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)


def encode_line(line: Mapping[str, Any]) -> bytes:
    """Encode one line of a manifest or sidecar index."""
    return _LINE_ENCODER.encode(line).encode(errors="surrogatepass") + b"\n"


def encode_files(files: Iterable[StoredFile]) -> bytes:
    """Encode the lines of files, byte for byte as `encode_line` encodes what `make_line` makes of each.

    A manifest may have a million lines. So the usual line is formatted at once, without a dictionary of its fields.
    """
    return b"".join(
        [
            encode_line(make_line(each)) if each.unpacked is not None or not each.sha256 else _encode_usual_file(each)
            for each in files
        ]
    )


def _encode_usual_file(stored: StoredFile) -> bytes:
    """Encode the line of a file that is stored as in the container, with its SHA-256."""
    (name, size, etag, md5, content_type, content_encoding, last_modified, _), sha256, *_ = stored
    md5_text = "null" if md5 is None else f'"{md5.hex()}"'
    return (
        f'{{"name":{encode_basestring(name)},"size":{size},"sha256":"{sha256.hex()}","md5":{md5_text},'
        f'"etag":{encode_basestring(etag)},"content_type":{_encode_text(content_type)},'
        f'"content_encoding":{_encode_text(content_encoding)},"last_modified":{_encode_epoch(last_modified)}}}\n'
    ).encode(errors="surrogatepass")


def _encode_text(text: str | None) -> str:
    return "null" if text is None else encode_basestring(text)


@lru_cache(1024)
def _encode_epoch(seconds: int | None) -> str:
    return _encode_text(None if seconds is None else _format_epoch(seconds))


def _proof_kind(stored: StoredFile) -> str:
    """Return the evidence for a file that was copied by the storage service.

    The service compares the MD5 of a blob that it copies in a single request, but not of one that it copies in blocks.
    Source: "Put Blob From URL", "Put Block From URL".
    """
    return "service-md5" if stored.blob.size <= MAX_SINGLE_COPY_BYTES else "service"


def _stored_fields(blob: Blob, unpacked: UnpackedFile) -> dict[str, Any]:
    return {"size": blob.size, "sha256": unpacked.stored_sha256.hex(), "content_encoding": blob.content_encoding}


@lru_cache(1024)
def _format_epoch(seconds: int) -> str | None:
    return format_timestamp(datetime.fromtimestamp(seconds, UTC)) if seconds in VALID_EPOCH_SECONDS else None


def read_header(document: Mapping[str, Any], *, name: str) -> Version:
    """Parse the first line of the manifest `name` into a version.

    Raises KeyError or ValueError for any other line. The check is strict because other programs may write to the
    destination, and the name of a version becomes a path.
    """
    record = sanitize_record(read_mapping(read_mapping(document)["export"]))
    if document["version"] != name or make_version_name(name) != name:
        raise ValueError(f"it describes version {str(document['version'])[:80]!r}")
    try:
        globs = parse_globs(read_texts(document.get("include", ())), read_texts(document.get("exclude", ())))
    except UsageError as error:
        raise ValueError(str(error)) from None
    return Version(
        serial=0,
        name=name,
        export=record["id"],
        facts=ExportFacts(
            read_optional(document["imodel"], read_text),
            read_optional(document["changeset"], read_text),
            read_text(document["modified"]),
            record,
        ),
        listing=ListingState(is_complete=True),
        inventory=Inventory(document.get("inventory", Inventory.LIST)),
        container_url=read_text(document.get("container") or ""),
        globs=globs,
        content=Content(document.get("content") or Content.STORED),
        summary=VersionSummary(
            published_at=read_timestamp(document["finished"]),
            files=read_count(document["files"]),
            bytes=read_count(document["bytes"]),
            completeness=Completeness(
                **{each.name: read_count(document.get(each.name, 0)) for each in fields(Completeness)}
            ),
        ),
    )


def is_known_defect(subject: str, message: str, defects: Collection[str]) -> bool:
    """Return whether a defect of a file is among the known ones, even if an earlier release worded it differently.

    `message` is `subject`, a colon and a sentence.
    """
    return message in defects or any(each.startswith(f"{subject}: ") for each in defects)


def read_defects(header_line: Mapping[str, Any]) -> frozenset[str]:
    """Return the known defects of a version from the first line of its manifest: names and sentences."""
    lists = "missing_names", "unheld", "damaged_names", "elsewhere"
    no_texts: tuple[str, ...] = ()
    return frozenset(each for name in lists for each in read_or_default(header_line.get(name), read_texts, no_texts))


def read_line(document: Mapping[str, Any]) -> StoredFile:
    """Parse the line of one file.

    The mtime of the file is 0, as the manifest has none. An impossible `last_modified` counts as unknown. Raises
    KeyError or ValueError for any other line.
    """
    stored = read_optional(read_mapping(document).get("stored"), read_mapping)
    blob_fields = document if stored is None else stored
    blob = Blob(
        read_text(document["name"]),
        read_count(blob_fields["size"]),
        read_text(document["etag"] or ""),
        read_digest(document["md5"], 16) if document["md5"] else None,
        read_optional(document["content_type"], read_text),
        read_optional(blob_fields["content_encoding"], read_text),
        read_optional(document["last_modified"], _parse_epoch),
    )
    sha256 = read_digest(document["sha256"], 32) if document["sha256"] else b""
    if stored is not None and sha256:
        return StoredFile(
            blob, sha256, 0, unpacked=UnpackedFile(read_count(document["size"]), read_digest(stored["sha256"], 32))
        )
    is_service_copy = stored is None and document.get("proof") in {"service-md5", "service"} and blob.md5 is not None
    if not sha256 and not is_service_copy and document.get("proof") != UNPROVEN:
        raise ValueError(f"no digest proves {blob.name}")
    return StoredFile(blob, sha256, 0)


def read_lines(lines: Iterator[Mapping[str, Any]], limit: int) -> list[StoredFile]:
    """Parse the lines of the next files, at most `limit`; empty at the end. Raises as `read_line` does."""
    return [read_line(line) for line in islice(lines, limit)]


_EARLY_TIMESTAMP = re.compile(r"\d{1,3}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
"""Time in a year before 1000, as earlier releases wrote it without padding."""


def _parse_epoch(value: Any) -> int | None:
    if _EARLY_TIMESTAMP.fullmatch(read_text(value)):
        return None
    seconds = int(datetime.fromisoformat(read_timestamp(value)).timestamp())
    return seconds if seconds in VALID_EPOCH_SECONDS else None


def split_manifest(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a manifest that arrives in chunks as pieces of whole lines, without their last line break.

    The first line comes alone. Raises ValueError for a line that is too long.
    """
    unfinished, is_first = b"", True
    for chunk in chunks:
        data = unfinished + chunk
        if is_first and (end := data.find(b"\n")) >= 0:
            yield data[:end]
            is_first, data = False, data[end + 1 :]
        end = -1 if is_first else data.rfind(b"\n")
        if end >= 0:
            yield data[:end]
        unfinished = data[end + 1 :]
        if len(unfinished) > MAX_DOCUMENT_BYTES:
            raise ValueError("it has a line that is too long")
    if unfinished:
        yield unfinished


_BEFORE_OTHER_LINE: Final = re.compile(rb'\n(?!\{"name":"[^"\\\n]*+","size":)')
"""Line break before a line that another program may have written in another form, or whose name has an escape."""


def find_line(chunks: Iterable[bytes], name: str) -> Mapping[str, Any] | None:
    """Return the line of a file in a manifest that arrives in chunks; None if there is none.

    The bytes are searched for the start of the line as tilesync writes it, so hardly any other line is parsed. Raises
    ValueError for a damaged line among those that are parsed.
    """
    start = b'\n{"name":' + json.dumps(name, ensure_ascii=False).encode(errors="replace") + b',"size":'
    pieces = split_manifest(chunks)
    next(pieces, None)
    found = (_find_in_piece(b"\n" + piece, name, start) for piece in pieces)
    return next((line for line in found if line is not None), None)


def _find_in_piece(piece: bytes, name: str, start: bytes) -> Mapping[str, Any] | None:
    """Return the line of a file in a piece in which a line break comes before each line."""
    position = piece.find(start)
    positions = (match.start() for match in _BEFORE_OTHER_LINE.finditer(piece)) if position < 0 else (position,)
    lines = (read_mapping(parse_json(_cut_line(piece, each + 1))) for each in positions)
    return next((line for line in lines if line.get("name") == name), None)


def _cut_line(lines: bytes, start: int) -> bytes:
    end = lines.find(b"\n", start)
    return lines[start:] if end < 0 else lines[start:end]


@contextmanager
def translate_damage(manifest: str) -> Iterator[None]:
    """Raise DestinationError for an error in the content of a manifest, which is named by its path or its version."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise DestinationError(
            f"the manifest {manifest} is damaged: {error}",
            hint="`tilesync verify --all` shows what is damaged; name another version, or mirror into DEST again",
        ) from error


def read_latest(data: bytes) -> Mapping[str, Any] | None:
    """Parse `latest.json`; None if tilesync did not write it, or if it is incomplete."""
    try:
        document = read_mapping(parse_json(data, max_bytes=MAX_LATEST_BYTES))
        read_text(document["version"]), read_text(document["manifest"])
    except (ValueError, KeyError):
        return None
    return document


MAX_LATEST_BYTES = 1 << 20
"""Maximum bytes of `latest.json`. A real one has a few hundred."""
