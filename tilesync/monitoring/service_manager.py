"""Notifications to the service manager (systemd): the run is ready, its status, and that it stops."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

SEND_TIMEOUT_S: Final = 1.0
"""Longest time to wait for room in the socket of the service manager."""

MAX_STATUS_CHARACTERS: Final = 500


def notify_ready(status: str, environ: Mapping[str, str] = os.environ) -> None:
    """Tell the service manager that the run has begun, with its status."""
    send_notification(f"READY=1\nSTATUS={_format_status(status)}", environ)


def notify_status(status: str, environ: Mapping[str, str] = os.environ) -> None:
    """Tell the service manager how far the run is. Does not wait: the next status replaces a lost one."""
    send_notification(f"STATUS={_format_status(status)}", environ, timeout_s=0)


def notify_stopping(status: str, environ: Mapping[str, str] = os.environ) -> None:
    """Tell the service manager that the run ends, with its status."""
    send_notification(f"STOPPING=1\nSTATUS={_format_status(status)}", environ)


def send_notification(text: str, environ: Mapping[str, str], *, timeout_s: float = SEND_TIMEOUT_S) -> None:
    """Send a datagram to the socket in NOTIFY_SOCKET, if it is set. Errors are ignored: no run depends on it.

    Source: sd_notify(3). A socket that begins with `@` is in the abstract namespace.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(timeout_s)
        sender.sendto(text.encode(errors="replace"), address)


def _format_status(status: str) -> str:
    """Return the status in one line: a line break would begin another field."""
    return " ".join(status.split())[:MAX_STATUS_CHARACTERS]
