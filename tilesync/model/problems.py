"""Problems of remarks that decide something: the others are only told."""

from __future__ import annotations

from typing import Final

DAMAGED: Final = "damaged"
"""The problem of a file whose structure is broken, and that the container holds so."""

HOLLOW: Final = "empty tile"
"""The problem of a tile without any bytes: for who asks for it, it is missing."""

NEEDS: Final = "buffer"
"""No problem: the detail says how many bytes a file needs another to have at least, and its name, after a blank."""

UNPACKED: Final = "unpacked"
"""No problem: the detail says how many bytes a file of no known kind has once it is unpacked."""

UNFOLLOWED: Final = "unfollowed"
"""The problem of a file with URIs that lead elsewhere, or stand where nobody knows what they are."""

AWAY: Final = "leads away"
"""The problem of the root where contents or subtrees of it lie elsewhere: no copy of the container is all of it."""

BACK: Final = "absolute URL"
"""The problem of a file with URIs that lead back to its container, from wherever a copy of it stands."""
