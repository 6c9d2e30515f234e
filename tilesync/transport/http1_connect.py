"""A connection to a host: one address after the other, TLS where it is asked for, without blocking the loop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

ADDRESS_TIMEOUT: Final = timedelta(seconds=5)
"""How long one address may take to answer, and to shake hands."""


class Http1Connector:
    """Connects to one host; with a `context` by TLS, going on with the `session` of an earlier connection where it has
    one: who trusted the host then need not look at its certificate again. What its name resolves to is kept as long as
    it answers.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self._host = host
        self._port = port
        self._tls_context = context
        self._addresses: list[tuple[socket.AddressFamily, tuple[Any, ...]]] = []
        self.tls_session: ssl.SSLSession | None = None

    async def connect(self) -> socket.socket:
        """A connected socket that does not block. Raises OSError when no address answers, or none is to be trusted."""
        try:
            if not self._addresses:
                found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                self._addresses = [(family, address) for family, _, _, _, address in found]
        except ValueError:  # a name that no resolver can be asked for
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
        more = asyncio.Event()
        loop.add_reader(sock.fileno(), more.set)
        try:
            await more.wait()
        finally:
            loop.remove_reader(sock.fileno())
