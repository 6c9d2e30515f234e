"""Package in a tar file: headers one after another, for which an index is built.

Long names of GNU and PAX are read; sparse files are refused. Source: tar(5); POSIX, "pax Interchange Format".
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tilesync.errors import DamagedPackage
from tilesync.stores.packages.readers.package import IndexReference, Package, PackageEntry, check_entry_name
from tilesync.stores.packages.readers.package_input import COPY_AGAIN_HINT, PackageInput, damaged

BLOCK_BYTES = tarfile.BLOCKSIZE

MAX_EXTENSION_BYTES = 1 << 20
"""Largest header with a long name, or with PAX records: a name has at most 1,024 characters."""

_REGULAR_TYPES = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
_PAX_TYPES = frozenset({tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE})


class TarMember(NamedTuple):
    """Member of a tar file. `offset`: of its first header. `data_offset`: of its bytes. `end`: of the next header."""

    name: str
    type: bytes
    size: int
    offset: int
    data_offset: int
    end: int

    @property
    def is_file(self) -> bool:
        """True for a regular file."""
        return self.type in _REGULAR_TYPES and not self.name.endswith("/")


def read_member(file: PackageInput, offset: int) -> TarMember | None:
    """Read the member at an offset, with the headers in front that extend it; None at the end mark.

    Raises DamagedPackage if there is no header, or if the package ends.
    """
    place, extensions = offset, dict[str, str]()
    while True:
        if place + BLOCK_BYTES > file.size:
            if place == 0:
                raise _not_a_tar_file(file)
            raise _cut_off(file, "its end mark is missing")
        block = file.read_at(place, BLOCK_BYTES)
        if not block.strip(b"\0"):
            return None
        info = _parse_header(file, block, place)
        data_offset = place + BLOCK_BYTES
        size = _read_size(file, extensions.get("size"), info.size)
        end = data_offset + -(-size // BLOCK_BYTES) * BLOCK_BYTES
        if data_offset + size > file.size:
            raise _cut_off(file, f"it ends in the middle of {info.name}")
        if info.type in _PAX_TYPES:
            extensions |= _parse_pax(file, _read_extension(file, data_offset, size))
        elif info.type == tarfile.GNUTYPE_LONGNAME:
            extensions["path"] = _decode(file, _read_extension(file, data_offset, size).partition(b"\0")[0])
        elif info.type not in {tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE}:
            _refuse_sparse(file, info, extensions)
            return TarMember(extensions.get("path", info.name), info.type, size, offset, data_offset, end)
        place = end


def _parse_header(file: PackageInput, block: bytes, place: int) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError, ValueError):
        if place == 0:
            raise _not_a_tar_file(file) from None
        raise damaged(file, f"there is no header at byte {place}") from None
    if info.size < 0:
        raise damaged(file, f"{info.name} is said to have {info.size} bytes")
    return info


def _cut_off(file: PackageInput, reason: str) -> DamagedPackage:
    return DamagedPackage(f"the package {file.path} is cut off: {reason}", hint=COPY_AGAIN_HINT)


def _not_a_tar_file(file: PackageInput) -> DamagedPackage:
    return DamagedPackage(f"{file.path} is not a tar file, as the ending of its name says")


def _read_size(file: PackageInput, text: str | None, size: int) -> int:
    """Return the size of a member: that of its PAX record, if it has one, since the header ends at 8 GiB."""
    if text is None:
        return size
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise damaged(file, f"it states a size of {text[:20]!r}")
    return int(text)


def _read_extension(file: PackageInput, offset: int, size: int) -> bytes:
    if size > MAX_EXTENSION_BYTES:
        raise damaged(file, f"a header has more than {MAX_EXTENSION_BYTES:,} bytes")
    return file.read_at(offset, size)


def _parse_pax(file: PackageInput, data: bytes) -> dict[str, str]:
    """Parse PAX records: `LENGTH KEY=VALUE`, each with a line break. Only name and size matter, and sparse files."""
    records, place = dict[str, str](), 0
    while place < len(data):
        digits, _, rest = data[place : place + 20].partition(b" ")
        length = int(digits) if digits.isdigit() and rest else 0
        record = data[place + len(digits) + 1 : place + length]
        key, equals, value = record.partition(b"=")
        if place + length > len(data) or not record.endswith(b"\n") or not equals:
            raise damaged(file, "an extended header is not readable")
        if key in {b"path", b"size"} or key.startswith(b"GNU.sparse."):
            records[_decode(file, key)] = _decode(file, value[:-1])
        place += length
    return records


def _decode(file: PackageInput, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise damaged(file, f"a name in it is not valid UTF-8: {data[:80]!r}") from None


def _refuse_sparse(file: PackageInput, info: tarfile.TarInfo, extensions: Mapping[str, str]) -> None:
    if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in extensions):
        raise DamagedPackage(
            f"the package {file.path} has a sparse file, which tilesync does not read: {info.name}",
            hint="make the package again, without --sparse",
        )


def refuse_cut_off(file: PackageInput) -> None:
    """Raise DamagedPackage if the file is no tar file, or does not end with the block of zeros of an end mark."""
    read_member(file, 0)
    if file.size % BLOCK_BYTES or file.read_at(file.size - BLOCK_BYTES, BLOCK_BYTES).strip(b"\0"):
        raise _cut_off(file, "its end mark is missing")


class TarPackage(Package):
    """An open tar file. Its members have no checksum: only a manifest can prove them.

    Only the end mark tells whether all members are there; it is read when the package is opened.
    """

    def __init__(self, file: PackageInput, index: IndexReference | None = None) -> None:
        super().__init__(file, index)
        refuse_cut_off(file)

    def members(self) -> Iterator[TarMember]:
        """Yield all members, in order."""
        offset = 0
        while (member := read_member(self.file, offset)) is not None:
            yield member
            offset = member.end

    def entries(self) -> Iterator[PackageEntry]:
        """Yield the members that are files. Links, devices and the like are left out: no version has them."""
        return (self._to_entry(member) for member in self.members() if member.is_file)

    def ignored_names(self) -> Iterator[str]:
        """Yield the names of members that are neither files nor folders."""
        for member in self.members():
            if not member.is_file and member.type != tarfile.DIRTYPE and not member.name.endswith("/"):
                yield member.name

    def _to_entry(self, member: TarMember) -> PackageEntry:
        name = check_entry_name(member.name.removeprefix("./"), self.file)
        return PackageEntry(name, member.size, member.offset, member.size)

    def read_place(self, place: int) -> PackageEntry | None:
        """Read the member whose headers begin at an offset."""
        member = read_member(self.file, place)
        return self._to_entry(member) if member is not None else None

    def chunks(self, entry: PackageEntry, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes of an entry from `offset` on."""
        member = read_member(self.file, entry.offset)
        if member is None or member.size != entry.size:
            raise damaged(self.file, f"there is no header of {entry.name}")
        return self.file.chunks(member.data_offset + offset, max(0, entry.size - offset))
