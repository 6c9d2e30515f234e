"""Parse SOURCE and DEST: an iModel id, a container link, an existing mirror, a folder, a container or a bucket.

Also redact them for reports: without secrets, folders as absolute paths.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from time import monotonic

from tilesync.app.locations import (
    Location,
    find_link,
    is_azure,
    is_folder,
    is_package,
    parse_location,
    refuse_missing_folder,
)
from tilesync.azure.sas import parse_sas_link
from tilesync.errors import UsageError
from tilesync.itwin.portal_urls import IMODEL_ID_HINT, ITWIN_ID_HINT, find_imodel_id, find_itwin_id, parse_guid
from tilesync.model import SasUrl, Secret
from tilesync.model.storage import AzureLocation, S3Location

__all__ = [
    "Dest",
    "Location",
    "Source",
    "find_link",
    "find_viewer_location",
    "is_azure",
    "is_folder",
    "is_package",
    "parse_dest",
    "parse_imodel_id",
    "parse_itwin_id",
    "parse_mirror_source",
    "parse_source_link",
    "redact_dest",
    "redact_source",
    "refuse_missing_folder",
]

Source = str | Path | Secret | AzureLocation | S3Location
"""An iModel id, a URL of a portal, a container link (better as a Secret), or an existing mirror."""

Dest = str | Path | Secret | AzureLocation | S3Location
"""A folder, az://ACCOUNT/CONTAINER[/PREFIX], s3://BUCKET[/PREFIX], or a container link with write permission."""


def parse_dest(dest: Dest, azure_endpoint: str | None = None) -> Location:
    """Parse DEST into a location. Raises UsageError, which never shows a possible signature."""
    if not isinstance(dest, str | Secret):
        return dest
    text = dest.text if isinstance(dest, Secret) else dest
    if not text.strip():
        raise UsageError("DEST is empty", hint="name the folder, container or bucket to mirror into")
    location = parse_location(text, endpoint=azure_endpoint or None, fetched=monotonic())
    if location is None and ("?sig=" in text or "&sig=" in text):
        raise UsageError("DEST is an incomplete link, not a folder", hint="a link begins with https://")
    return location if location is not None else Path(text)


def find_viewer_location(what: Source, azure_endpoint: str | None = None) -> Location | None:
    """Return the destination that a viewer link is for; None for an iModel id. Raises UsageError."""
    if not isinstance(what, str | Secret):
        return what
    text = what.text if isinstance(what, Secret) else what
    if "://" in text and find_imodel_id(text) is not None:
        return None
    if "://" in text or text.startswith(("az:", "s3:")):
        return parse_location(text, endpoint=azure_endpoint or None)
    is_path = _may_be_path(text) and ("/" in text or text in {".", ".."})
    return Path(text) if is_path or _is_here(Path(text)) else None


def _is_here(path: Path) -> bool:
    """Return whether a name is that of a folder or a package."""
    return os.path.isdir(path) or (is_package(path) and os.path.exists(path))


def _may_be_path(text: str) -> bool:
    """Return whether a text without `://` can be read and shown as a path: it cannot contain a signature, or exists.

    A link whose beginning is lost has a query. So a text with a sign of a query is a path only if a slash comes before
    the first question mark, and nothing looks like a signature.
    """
    if not any(sign in text for sign in "?&=") or os.path.exists(os.path.expanduser(text)):
        return True
    return _SECRET_PATTERN.search(text) is None and any(sign in text.partition("?")[0] for sign in "/\\")


_EXAMPLE_ID = "5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40"


def parse_imodel_id(text: str) -> str:
    """Parse an iModel id, or find it in the URL of a portal.

    Raises UsageError for any other text; a text that may be a link is not shown, since it may contain a signature.
    """
    found = find_imodel_id(text) if "://" in text else parse_guid(text)
    if found is None:
        raise _not_an_id(text, "an iModel id", IMODEL_ID_HINT)
    return found


def parse_itwin_id(text: str) -> str:
    """Parse an iTwin id, or find it in the URL of a portal. Raises UsageError, as `parse_imodel_id` does."""
    found = find_itwin_id(text) if "://" in text else parse_guid(text)
    if found is None:
        raise _not_an_id(text, "an iTwin id", ITWIN_ID_HINT)
    return found


def _not_an_id(text: str, wanted: str, hint: str) -> UsageError:
    """Build the error for a text that is no id; a text that may be a link is not shown."""
    shown = "this" if any(sign in text for sign in "?&=") or not text.strip() else repr(text)
    return UsageError(
        f"{shown} is not {wanted}" + (", but a link" if "?" in text else ""),
        hint=f"{wanted} looks like {_EXAMPLE_ID}: {hint}",
    )


_SOURCE_HINT = (
    "give an iModel id, a container link, a folder that `tilesync mirror` has filled, or a package of `tilesync pack`"
)

_NAME_HINT = f"give the path of a folder or a package; or an iModel id, such as {_EXAMPLE_ID}: {IMODEL_ID_HINT}"
_MANIFEST_PATHS = ("manifests", ".tilesync/manifests")


def _parse_mirror_text(source: str, endpoint: str | None) -> Location | None:
    """Parse SOURCE as the location of an existing mirror; None if it is anything else.

    A text that ends as the name of a package does is one, unless it is a folder. A text with a slash, or with a leading
    dot or tilde, is a folder. The name of an existing folder is one too, unless
    it is an iModel id and the folder has no manifests. A text that looks like a link is never read as a path nor shown,
    since it may contain a signature; a container link is always that of an export. Raises UsageError, and Unreadable
    for a path that cannot be inspected.
    """
    if source.startswith(("az:", "s3:")):
        return parse_location(source, endpoint=endpoint)
    if source == "-" or "://" in source or not _may_be_path(source):
        return None
    path = Path(os.path.expanduser(source))
    if is_package(path):
        from tilesync.stores.local.folder_paths import read_mode

        if read_mode(path) is None:
            raise UsageError(f"the package {path} does not exist", hint=_SOURCE_HINT)
        return path
    if any(sign in source for sign in "/\\") or source.startswith((".", "~")):
        _require_folder(path)
        return path
    if parse_guid(source) is not None:
        return path if any(os.path.isdir(path / inner) for inner in _MANIFEST_PATHS) else None
    return _parse_folder_name(path)


def _require_folder(path: Path) -> None:
    """Raise UsageError unless a folder is at the path, Unreadable if that cannot be told."""
    from tilesync.stores.local.folder_paths import folder_hint, read_mode

    mode = read_mode(path)
    if mode is None:
        raise UsageError(f"the folder {path} does not exist", hint=_SOURCE_HINT)
    if not stat.S_ISDIR(mode):
        raise UsageError(f"{path} is not a folder", hint=folder_hint(path, is_read=True))


def _parse_folder_name(path: Path) -> Path:
    """Return the path of a mirror in the working directory. Raises UsageError for anything else but an iModel id."""
    from tilesync.stores.local.folder_paths import read_mode

    if read_mode(path) is None:
        raise UsageError(f"there is no folder {path}, and it is not an iModel id", hint=_NAME_HINT)
    _require_folder(path)
    if not any(read_mode(path / inner) for inner in _MANIFEST_PATHS):
        raise UsageError(f"the folder {path} is not a mirror of tilesync", hint=_SOURCE_HINT)
    return path


def parse_mirror_source(source: Source, azure_endpoint: str | None = None) -> Location | None:
    """Parse SOURCE as the location of an existing mirror; None if it is anything else. Raises UsageError."""
    if isinstance(source, Secret):
        return None
    if not isinstance(source, str):
        return source
    if not source.strip():
        raise UsageError("SOURCE is empty", hint=_SOURCE_HINT)
    return _parse_mirror_text(source, azure_endpoint or None)


def parse_source_link(text: str, *, is_secret: bool = False) -> SasUrl | None:
    """Parse SOURCE as a container link; None if it is an iModel id. A secret is always a link. Raises UsageError."""
    if not is_secret and ("://" not in text or find_imodel_id(text) is not None):
        return None
    return parse_sas_link(text, fetched=monotonic())


_SECRET_PATTERN = re.compile(r"sig=|signature=|policy=", re.IGNORECASE)


def redact_source(text: str | None) -> str | None:
    """Return a SOURCE without possible secrets; None if it is not given, or comes from standard input."""
    if text is None or text == "-" or not text.strip():
        return None
    scheme, colon, rest = text.partition("://")
    if colon:
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
        host, slash, path = rest.partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    return None if _SECRET_PATTERN.search(text) else text


def redact_dest(text: Location | str | None) -> str | None:
    """Return a DEST without possible secrets; a folder as an absolute path."""
    redacted = redact_source(str(text)) if text is not None else None
    if redacted is None or "://" in redacted:
        return redacted
    try:
        return os.path.abspath(redacted)
    except OSError:  # the working directory is gone
        return redacted
