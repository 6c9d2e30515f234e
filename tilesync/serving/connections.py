"""Limits of a connection: the size of a request's headers, and the time until a request is complete."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

MAX_HEADER_BYTES: Final = 1 << 16
"""Bytes of the request line and the headers of one request. Browsers and proxies send at most 8 to 16 KiB."""

REQUEST_TIMEOUT_S: Final = 30.0
"""Seconds from the first byte of a request to its last one; for the first request from the connection on."""

_TOO_LARGE: Final = b"the headers of this request are larger than 64 KiB\n"
_TOO_LARGE_ANSWER: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_TOO_LARGE), _TOO_LARGE)
)


class _SilentLogger:
    """Logger for the connections of uvicorn, which would log answers that end early, with tracebacks.

    The application reports bugs itself. The rest is the normal end of a server or of a client.
    """

    level = 100

    def log(self, *_: object, **__: object) -> None:
        """Log nothing."""

    info = warning = error = log


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of a connection."""

    header_bytes: int = MAX_HEADER_BYTES
    request_timeout_s: float = REQUEST_TIMEOUT_S


def create_protocol_class(limits: ConnectionLimits) -> type[Any]:
    """Return the protocol class of uvicorn with these limits: that of httptools, or of h11 where that is missing.

    uvicorn has a limit of headers for h11 alone, and no timeout for requests.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol
    from uvicorn.protocols.http.h11_impl import H11Protocol

    kind = _make_h11_class if AutoHTTPProtocol is H11Protocol else _make_httptools_class
    return kind(_make_timed_class(AutoHTTPProtocol, limits), limits)


def _make_timed_class(parent: Any, limits: ConnectionLimits) -> Any:
    class TimedProtocol(parent):  # type: ignore[misc]  # the parent is chosen at run time
        """Protocol that closes a connection whose request does not become complete in time."""

        request_timer: asyncio.TimerHandle | None = None
        has_sent = False

        def is_request_incomplete(self) -> bool:
            """Return whether a part of a request has come, and more must come."""
            raise NotImplementedError

        def connection_made(self, transport: Any) -> None:
            self.logger = _SilentLogger()
            super().connection_made(transport)
            self._start_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self.has_sent = True
            super().data_received(data)
            if not self.is_request_incomplete():
                self._stop_timer()
            elif self.request_timer is None and not self.transport.is_closing():
                self._start_timer()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.request_timer is not None:  # the rest of a request may wait until now: its time begins anew
                self._stop_timer()
                self._start_timer()

        def _start_timer(self) -> None:
            self.request_timer = self.loop.call_later(limits.request_timeout_s, self._end_slow_request)

        def _stop_timer(self) -> None:
            if self.request_timer is not None:
                self.request_timer.cancel()
                self.request_timer = None

        def _end_slow_request(self) -> None:
            """Close the connection; wait on while an answer is under way, since its client may read slowly."""
            self.request_timer = None
            if self.cycle is not None and not self.cycle.response_complete:
                self._start_timer()
            elif not self.has_sent or self.is_request_incomplete():
                self.transport.close()

    return TimedProtocol


def _make_httptools_class(parent: Any, limits: ConnectionLimits) -> type[Any]:
    class LimitedHttpToolsProtocol(parent):  # type: ignore[misc]  # the parent is chosen at run time
        """Protocol over httptools, which itself collects headers of any size."""

        is_in_headers = False
        is_in_request = False
        bytes_of_headers = 0
        begun = 0

        def is_request_incomplete(self) -> bool:
            return self.is_in_request

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return  # the client goes on after a refusal
            was_in_request, self.begun = self.is_in_request, 0
            super().data_received(data)
            if self.is_in_headers and not self.transport.is_closing():
                # Else the data has the end of another request too: the headers are a part of it, of unknown size.
                is_all_of_this_request = self.begun == (0 if was_in_request else 1)
                self.bytes_of_headers += len(data) if is_all_of_this_request else 0
                if self.bytes_of_headers > limits.header_bytes:
                    self._refuse()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.is_in_headers = self.is_in_request = True
            self.bytes_of_headers = 0
            self.begun += 1

        def on_headers_complete(self) -> None:
            self.is_in_headers = False
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if self.transport.is_closing():
                return
            if size > limits.header_bytes:
                self._refuse()
            else:
                super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            if not self.transport.is_closing():
                super().on_body(body)

        def on_message_complete(self) -> None:
            self.is_in_request = False
            if not self.transport.is_closing():
                super().on_message_complete()

        def _refuse(self) -> None:
            self.transport.write(_TOO_LARGE_ANSWER)
            self.transport.close()

    return LimitedHttpToolsProtocol


def _make_h11_class(parent: Any, limits: ConnectionLimits) -> type[Any]:
    class LimitedH11Protocol(parent):  # type: ignore[misc]  # the parent is chosen at run time
        """Protocol over h11, which itself refuses incomplete headers of more than `h11_max_incomplete_event_size`."""

        def is_request_incomplete(self) -> bool:
            import h11

            return self.conn.their_state is h11.SEND_BODY or bool(self.conn.trailing_data[0])

    return LimitedH11Protocol
