"""Names of the files of a version, in eight bytes each: only files with these names are served."""

from __future__ import annotations

import secrets
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

_DIGEST_BYTES: Final = 8


class NameSet:
    """Set of names that keeps a digest of each, sorted.

    Names are encoded in UTF-8. The digests have a random key, so nobody can choose a name with the digest of another
    one. A name that is not in the set is taken for one of a million with a chance of one to ten million millions.
    """

    def __init__(self, names: Iterable[bytes]) -> None:
        self._key = secrets.token_bytes(16)
        self._digests = array("Q", sorted(map(self._digest, names)))

    def __contains__(self, name: bytes) -> bool:
        digest = self._digest(name)
        position = bisect_left(self._digests, digest)
        return position < len(self._digests) and self._digests[position] == digest

    def __len__(self) -> int:
        return len(self._digests)

    def _digest(self, name: bytes) -> int:
        return int.from_bytes(blake2b(name, digest_size=_DIGEST_BYTES, key=self._key).digest())
