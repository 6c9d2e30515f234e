"""Signed container links and secrets; their `repr` never shows a secret."""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from urllib.parse import quote, unquote, urlsplit

from tilesync.model.tiles import ROOT
from tilesync.values import dataclass


class Secret:
    """Text that `repr` does not show."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


@dataclass(frozen=True, slots=True, repr=False)
class SasUrl:
    """Container URL with the query that signs it. Equality compares both; `repr` hides the query.

    `base` ends without a slash. `expires`: earliest end that the query states (UTC), None if it states none.
    `fetched_at_s`: when this process got the link, in seconds of the monotonic clock.
    """

    base: str
    query: str
    expires: datetime | None = field(default=None, compare=False)
    fetched_at_s: float = field(default=0.0, compare=False)

    @property
    def container_name(self) -> str:
        """Last segment of the path: for a mesh export, the export id."""
        return unquote(urlsplit(self.base).path.rpartition("/")[2])

    def blob_url(self, name: str) -> str:
        """Return the signed URL of one blob: each segment of the name quoted once, the query unchanged."""
        return f"{self.base}/{quote(name, safe='/~')}?{self.query}"

    def folder_prefix(self, depth: int) -> str:
        """Return the prefix of the blobs if the last `depth` segments of the path are a folder in the container.

        Empty, or ends with a slash.
        """
        return "".join(f"{unquote(part)}/" for part in self.base.split("/")[-depth:]) if depth else ""

    def listing_url(self, marker: str | None, *, page_size: int | None = None, prefix: str = "", depth: int = 0) -> str:
        """Return the signed URL of one page of List Blobs, starting at `marker` (None: from the start).

        The last `depth` segments of the path are a folder in the container.
        """
        base, prefix = self.base.rsplit("/", depth)[0], self.folder_prefix(depth) + prefix
        more = f"&maxresults={page_size}" if page_size else ""
        if prefix:
            more += f"&prefix={quote(prefix, safe='')}"
        if marker:
            more += f"&marker={quote(marker, safe='')}"
        return f"{base}?restype=container&comp=list{more}&{self.query}"

    @property
    def is_read_only(self) -> bool:
        """True if the link states that it only reads, and lists at most. Source: "Create a service SAS", `sp`."""
        fields = dict(pair.partition("=")[::2] for pair in self.query.split("&"))
        return "r" in fields.get("sp", "") and set(fields["sp"]) <= {"r", "l"}

    def viewer_url(self, prefix: str = "") -> str:
        """Return the URL that a 3D viewer starts from.

        Slashes in the query, as in unquoted signatures, are quoted: 3d-tiles-renderer takes everything before the last
        slash for the folder (0.5.3).
        """
        path, mark, query = self.blob_url(f"{prefix}{ROOT}").partition("?")
        return f"{path}{mark}{query.replace('/', '%2F')}"

    def __repr__(self) -> str:
        return f"SasUrl({self.base!r}, expires={self.expires})"
