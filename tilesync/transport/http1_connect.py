"""TCP and TLS connect to a host for HTTP/1.1, without blocking the event loop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

ADDRESS_TIMEOUT: Final = timedelta(seconds=5)
"""Time limit for the TCP connect and TLS handshake with one address."""


class Http1Connector:
    """Connector to one host, which tries its addresses one after the other; it uses TLS if there is a `context`.

    It resumes the `tls_session` of an earlier connection if there is one, which saves the check of the certificate. The
    resolved addresses are cached as long as one of them answers.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self._host = host
        self._port = port
        self._tls_context = context
        self._addresses: list[tuple[socket.AddressFamily, tuple[Any, ...]]] = []
        self.tls_session: ssl.SSLSession | None = None

    async def connect(self) -> socket.socket:
        """Return a connected, non-blocking socket. Raises OSError if no address answers with a trusted certificate."""
        try:
            if not self._addresses:
                resolved = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                self._addresses = [(family, address) for family, _, _, _, address in resolved]
        except ValueError:  # the name is invalid, so no resolver accepts it
            raise OSError("no such host") from None
        for family, address in self._addresses:
            with suppress(OSError):  # TimeoutError among them
                async with asyncio.timeout(ADDRESS_TIMEOUT.total_seconds()):
                    return await self._connect_address(family, address)
        self._addresses = []
        raise OSError("no address answers")

    async def _connect_address(self, family: socket.AddressFamily, address: tuple[Any, ...]) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(sock, address)
            if self._tls_context is not None:
                sock = self._tls_context.wrap_socket(
                    sock, server_hostname=self._host, do_handshake_on_connect=False, session=self.tls_session
                )
                await _do_tls_handshake(sock)
        except BaseException:
            sock.close()
            raise
        return sock


async def _do_tls_handshake(sock: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        with suppress(ssl.SSLWantReadError):
            sock.do_handshake()
            return
        readable = asyncio.Event()
        loop.add_reader(sock.fileno(), readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(sock.fileno())
