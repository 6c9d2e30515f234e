"""Records of a Zip file, as far as packages have them. Source: APPNOTE.TXT 6.3.10; the section is in brackets.

All numbers are little-endian. A size or an offset that does not fit has all bits set, and its value is in the Zip64
extra field.
"""

from __future__ import annotations

import hashlib
import struct
from enum import IntEnum
from typing import Final

LOCAL_HEADER: Final = struct.Struct("<4s5H3L2H")
"""[4.3.7] signature, version needed, flags, method, time, date, CRC-32, packed size, size, name length, extra length.

The name and the extra fields follow, then the bytes of the file.
"""
LOCAL_SIGNATURE: Final = b"PK\3\4"

CENTRAL_HEADER: Final = struct.Struct("<4s6H3L5H2L")
"""[4.3.12] signature, version made by, version needed, flags, method, time, date, CRC-32, packed size, size, length of
the name, of the extra fields and of the comment, disk, internal attributes, external attributes, offset of the local
header.
"""
CENTRAL_SIGNATURE: Final = b"PK\1\2"

END_RECORD: Final = struct.Struct("<4s4H2LH")
"""[4.3.16] signature, disk, disk of the directory, entries on the disk, entries, directory size, its offset, comment
length.
"""
END_SIGNATURE: Final = b"PK\5\6"

ZIP64_END_RECORD: Final = struct.Struct("<4sQ2H2L4Q")
"""[4.3.14] signature, size of the rest, version made by, version needed, disk, disk of the directory, entries on the
disk, entries, directory size, its offset.
"""
ZIP64_END_SIGNATURE: Final = b"PK\6\6"

ZIP64_LOCATOR: Final = struct.Struct("<4sLQL")
"""[4.3.15] signature, disk of the Zip64 end record, its offset, number of disks."""
ZIP64_LOCATOR_SIGNATURE: Final = b"PK\6\7"

EXTRA_HEADER: Final = struct.Struct("<2H")
"""[4.5.1] id of an extra field, and the bytes that follow."""
ZIP64_EXTRA_ID: Final = 1

MAX_UINT16: Final = 0xFFFF
MAX_UINT32: Final = 0xFFFFFFFF
"""A field with this value is in the Zip64 record instead."""

UTF8_FLAG: Final = 1 << 11
"""[4.4.4] The name is UTF-8."""
ENCRYPTED_FLAG: Final = 1
DATA_DESCRIPTOR_FLAG: Final = 1 << 3
"""[4.4.4] CRC and sizes follow the bytes. A .3tz file must not have this."""


class ZipMethod(IntEnum):
    """Compression method of an entry [4.4.5]."""

    STORED = 0
    DEFLATED = 8
    ZSTANDARD = 93


INDEX_RECORD: Final = struct.Struct("<16sQ")
"""Record of the index of a .3tz file: MD5 of a name, offset of its local header. Source: 3D Tiles Archive Format."""


def hash_index_name(name: str) -> bytes:
    """Return the MD5 by which the index of a .3tz file finds a name: with slashes, and none in front."""
    return hashlib.md5(name.replace("\\", "/").lstrip("/").encode(), usedforsecurity=False).digest()


def index_sort_key(digest: bytes) -> bytes:
    """Return bytes that sort as the index does: by the digest as two little-endian numbers of eight bytes."""
    return digest[7::-1] + digest[:7:-1]
