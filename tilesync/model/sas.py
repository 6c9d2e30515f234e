"""Signed container links, and secrets: values whose `repr` is silent."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote, unquote, urlsplit

from tilesync.model.tiles import ROOT


class Secret:
    """A text whose `repr` is silent."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "Secret(…)"


@dataclass(frozen=True, slots=True, repr=False)
class SasUrl:
    """A container URL and the query that signs it. Equality is of base and query; `repr` is silent about the query.

    `base` ends without a slash. `expires` is the earliest end that the query states (UTC), None when it states none.
    `fetched` is when this process got it, on the monotonic clock, in seconds.
    """

    base: str
    query: str
    expires: datetime | None = field(default=None, compare=False)
    fetched_at_s: float = field(default=0.0, compare=False)

    @property
    def container_name(self) -> str:
        """The last segment of the path: for a mesh export the export id."""
        return unquote(urlsplit(self.base).path.rpartition("/")[2])

    def blob_url(self, name: str) -> str:
        """The signed URL of one blob: each segment of the name quoted once, the query as it was given."""
        return f"{self.base}/{quote(name, safe='/~')}?{self.query}"

    def folder_prefix(self, depth: int) -> str:
        """The prefix of the blobs behind the link, where the last `depth` parts of its path are no part of the
        container's; empty, or ending with a slash.
        """
        return "".join(f"{unquote(part)}/" for part in self.base.split("/")[-depth:]) if depth else ""

    def listing_url(self, marker: str | None, *, page_size: int | None = None, prefix: str = "", depth: int = 0) -> str:
        """The signed URL of one page of List Blobs, from `marker` on (None: from the start). The last `depth` parts of
        the path are a folder in the container.
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
        """Whether it says itself that it reads, and at most lists. Source: "Create a service SAS", `sp`."""
        fields = dict(pair.partition("=")[::2] for pair in self.query.split("&"))
        return "r" in fields.get("sp", "") and set(fields["sp"]) <= {"r", "l"}

    def viewer_url(self, prefix: str = "") -> str:
        """The URL that a 3D viewer starts from. No slash stands in its query, as those of signatures do when nobody
        quotes them: 3d-tiles-renderer takes what is before the last one for the folder (0.5.3).
        """
        path, mark, query = self.blob_url(f"{prefix}{ROOT}").partition("?")
        return f"{path}{mark}{query.replace('/', '%2F')}"

    def __repr__(self) -> str:
        return f"SasUrl({self.base!r}, expires={self.expires})"
