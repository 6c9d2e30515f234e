"""Run the application with uvicorn: bind its port, announce it, and end it within two seconds."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any, Final

from tilesync.core.urls import is_loopback
from tilesync.errors import UsageError
from tilesync.serving.application import AsgiApplication
from tilesync.serving.connections import ConnectionLimits, create_protocol_class

END_TIMEOUT_S: Final = 2
"""Seconds that answers have to end after the server was told to stop."""

KEEP_ALIVE_S: Final = 75
"""Seconds that a connection may be idle: as nginx has it."""

BACKLOG: Final = 2048

_ALL_ADDRESSES: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with --host
"""Hosts that stand for all addresses of this machine, and one at which it reaches itself."""

_EXAMPLE_ADDRESSES: Final[Mapping[int, tuple[str, int]]] = {
    socket.AF_INET: ("192.0.2.1", 9),
    socket.AF_INET6: ("2001:db8::1", 9),
}
"""Addresses of no machine, which the route to the world leads to. Source: RFC 5737, RFC 3849."""

INSTALL_HINT: Final = "install them: pip install 'tilesync[serve]'"


def require_server_packages() -> None:
    """Raise UsageError unless the packages of the extra `serve` are installed."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise UsageError(f"the server needs {' and '.join(missing)}, which are not installed", hint=INSTALL_HINT)


@contextmanager
def bound_sockets(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Listen on all addresses of a host, on one port; 0 chooses a free one. Raises UsageError."""
    sockets: list[socket.socket] = []
    try:
        for family, address in _resolve(host, port):
            if sockets:
                port = sockets[0].getsockname()[1]
            with suppress(_OtherAddressLost):
                sockets.append(_bind(family, (address[0], port, *address[2:]), is_first=not sockets))
        yield sockets
    finally:
        for each in sockets:
            each.close()


def find_origin(host: str, sockets: Sequence[socket.socket]) -> str:
    """Return the origin of the URLs at which this machine reaches the server."""
    return _make_origin(_ALL_ADDRESSES.get(host, host), sockets)


def find_network_pages(host: str, sockets: Sequence[socket.socket]) -> tuple[str, ...]:
    """Return the addresses of the page for other machines, if the server listens on all addresses of this one."""
    if host not in _ALL_ADDRESSES:
        return ()
    found = [address for each in sockets if (address := _find_own_address(each.family)) is not None]
    names = found or [socket.gethostname()]
    return tuple(f"{_make_origin(name, sockets)}/" for name in names)


def _make_origin(name: str, sockets: Sequence[socket.socket]) -> str:
    return f"http://{f'[{name}]' if ':' in name else name}:{sockets[0].getsockname()[1]}"


def _find_own_address(family: int) -> str | None:
    """Return the address from which this machine reaches others; None if it reaches none. Sends no packet."""
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(_EXAMPLE_ADDRESSES[family])
        address = str(probe.getsockname()[0])
        return None if is_loopback(address) else address
    return None


def _resolve(host: str, port: int) -> list[tuple[int, Any]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"the host {host!r} has no address ({reason})",
            hint="give an address of this machine with --host: 127.0.0.1, or 0.0.0.0 for all of them",
        ) from None
    return [(family, address) for family, _, _, _, address in sorted(found)]


class _OtherAddressLost(Exception):
    """A further address of the host cannot be used; the first one is enough."""


def _bind(family: int, address: tuple[Any, ...], *, is_first: bool) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name != "nt":  # there it would share the port with other programs
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if not is_first and error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
            raise _OtherAddressLost from None
        raise _translate_bind_error(error, address) from None
    return listening


def _translate_bind_error(error: OSError, address: tuple[Any, ...]) -> UsageError:
    host, port = address[0], address[1]
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"port {port} of {host} is in use, perhaps by another `tilesync serve`",
            hint=f"choose another port: --port {port + 1 if port < 65535 else 8000}, or --port 0 for any free one",
        )
    if error.errno == errno.EACCES:
        return UsageError(f"this user may not listen on port {port}", hint="choose a port above 1023: --port 8000")
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(
            f"{host} is not an address of this machine",
            hint="give one with --host: 127.0.0.1, or 0.0.0.0 for all of them",
        )
    return UsageError(f"cannot listen on port {port} of {host}: {error.strerror or error}")


async def run_server(
    application: AsgiApplication,
    sockets: Sequence[socket.socket],
    *,
    on_listening: Callable[[], None],
    limits: ConnectionLimits | None = None,
) -> None:
    """Serve until cancelled. Then it accepts no more, and answers that are under way have END_TIMEOUT_S to end.

    When it returns, no answer uses anything any more, and all connections are closed.
    """
    import uvicorn

    limits = limits or ConnectionLimits()
    config = uvicorn.Config(
        application,
        http=create_protocol_class(limits),
        h11_max_incomplete_event_size=limits.header_bytes,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    server = _create_server(config)
    serving = asyncio.ensure_future(server.serve(sockets=list(sockets)))
    try:
        on_listening()
        await asyncio.shield(serving)
    finally:
        await _end_server(server, serving)


async def _end_server(server: Any, serving: asyncio.Future[None]) -> None:
    """Let answers end; cancel those that take long, and drop the connections of clients that do not read.

    `timeout_graceful_shutdown` of uvicorn waits for no cancelled answer, and leaves such connections open.
    """
    server.should_exit = True
    await asyncio.wait({serving}, timeout=END_TIMEOUT_S)
    if not serving.done():
        if answers := set(server.server_state.tasks):
            for each in answers:
                each.cancel()
            await asyncio.wait(answers, timeout=END_TIMEOUT_S)  # a read of a disk that hangs is left behind
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        server.force_exit = True
    await serving


def _create_server(config: Any) -> Any:
    """Create the server; it leaves the signals of the process alone, which belong to the caller."""
    import uvicorn

    class QuietServer(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Handle no signal."""
            yield

    return QuietServer(config)
