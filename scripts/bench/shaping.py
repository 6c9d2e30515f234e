"""A line of 1 Gbit/s with 30 ms round trip, as a proxy: `python scripts/bench/shaping.py PORT SERVER_PORT`.

The kernel's own means (tc netem) are missing on many machines, so this process has the line. It passes the bytes of all
connections on. Each direction is one line, which all connections share: what comes in takes its turn at the rate of the
line, and comes out half a round trip later. While the line has work for 5 ms, nothing more is read, so TCP holds the
senders back. A new connection costs its round trip: its first bytes wait for it. TCP's slow start is not imitated.

One thread, edge-triggered epoll, and reads of up to 128 KiB keep the cost low: 400 MB took 0.7 to 0.9 s of CPU on a
busy machine. The tables say what share of the server's core it takes.
"""

from __future__ import annotations

import gc
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from service import Service, free_port, wait_for_port

LINE_BITS_PER_S = 1_000_000_000
"""Rate of the line in each direction: bits of TCP payload per second."""

ROUND_TRIP_S = 0.03
"""Round trip of the line, in seconds."""

_CHUNK_BYTES = 128 << 10
_MAX_BACKLOG_S = 0.005
_MAX_UNSENT_BYTES = 8 << 20
_EARLY_S = 0.0005
"""epoll waits for whole milliseconds, so what is due within half of one is sent."""


class Flow:
    """Bytes of one connection in one direction."""

    def __init__(self, source: socket.socket, target: socket.socket, *, first_wait_s: float) -> None:
        self.source = source
        self.target = target
        self.first_wait_s = first_wait_s
        self.free_at = 0.0
        self.has_ended = False
        self.unsent = deque[bytes | memoryview]()
        self.unsent_bytes = 0

    def receive(self) -> bytes | None:
        """Return what has come in: no bytes at the end, None if there is nothing."""
        try:
            return self.source.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def send(self) -> None:
        """Send what came out of the line; end the connection's direction at its end."""
        try:
            while self.unsent:
                data = self.unsent[0]
                if not data:
                    self.target.shutdown(socket.SHUT_WR)
                    self.unsent.clear()
                    return
                sent = self.target.send(data)
                self.unsent_bytes -= sent
                if sent < len(data):
                    self.unsent[0] = memoryview(data)[sent:]
                else:
                    self.unsent.popleft()
        except BlockingIOError:
            return
        except OSError:  # the client went away
            self.unsent.clear()
            self.unsent_bytes = 0


class Direction:
    """Line in one direction. `ready`: flows that may have bytes; `blocked`: those whose receiver is slow; `sent`: bytes
    on the line, by their arrival.
    """

    def __init__(self) -> None:
        self.ready = deque[Flow]()
        self.blocked = list[Flow]()
        self.sent = deque[tuple[float, Flow, bytes]]()
        self.free_at = 0.0

    def take_in(self, now: float) -> None:
        """Read from the flows in turn while the line has less than its backlog to do."""
        ready = self.ready
        if self.blocked:
            ready.extend(flow for flow in self.blocked if flow.unsent_bytes <= _MAX_UNSENT_BYTES)
            self.blocked = [flow for flow in self.blocked if flow.unsent_bytes > _MAX_UNSENT_BYTES]
        while ready and self.free_at - now < _MAX_BACKLOG_S:
            flow = ready.popleft()
            if flow.unsent_bytes > _MAX_UNSENT_BYTES:
                self.blocked.append(flow)
                continue
            data = flow.receive()
            if data is None:
                continue
            self.free_at = max(self.free_at, now) + len(data) * 8 / LINE_BITS_PER_S
            flow.free_at = max(self.free_at + ROUND_TRIP_S / 2 + flow.first_wait_s, flow.free_at)
            flow.first_wait_s = 0
            flow.unsent_bytes += len(data)
            self.sent.append((flow.free_at, flow, data))
            if data and (len(data) == _CHUNK_BYTES or flow.has_ended):
                ready.append(flow)

    def give_out(self, now: float) -> None:
        """Send what has arrived at the other end."""
        while self.sent and self.sent[0][0] <= now + _EARLY_S:
            _, flow, data = self.sent.popleft()
            flow.unsent.append(data)
            flow.send()

    def next_event(self) -> float:
        """Return the time of the next arrival, or of the next read."""
        arrival = self.sent[0][0] if self.sent else float("inf")
        return min(arrival, self.free_at - _MAX_BACKLOG_S) if self.ready else arrival


class Proxy:
    """Listener, the two directions of the line, and the flows by their file descriptors."""

    def __init__(self, port: int, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._up, self._down = Direction(), Direction()
        self._flows = dict[int, tuple[Flow, Direction, Flow]]()

    def run(self) -> None:
        """Pass bytes on until the process ends."""
        gc.disable()
        while True:
            wait_s = min(self._up.next_event(), self._down.next_event()) - time.monotonic()
            for number, event in self._epoll.poll(min(max(wait_s - _EARLY_S, 0), 1)):
                if number == self._listener.fileno():
                    self._accept()
                elif number in self._flows:
                    self._note_event(number, event)
            now = time.monotonic()
            for direction in (self._up, self._down):
                direction.give_out(now)
                direction.take_in(now)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._server_port))
        up = Flow(client, server, first_wait_s=ROUND_TRIP_S)
        down = Flow(server, client, first_wait_s=0)
        for end, flow, direction, other in ((client, up, self._up, down), (server, down, self._down, up)):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._flows[end.fileno()] = (flow, direction, other)
            self._epoll.register(end, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)

    def _note_event(self, number: int, event: int) -> None:
        """Note that a socket can be read or written; close a connection that broke, or ended on both sides."""
        flow, direction, other = self._flows[number]
        if event & select.EPOLLOUT and other.unsent:
            other.send()
        if event & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
            flow.has_ended = True
        if event & (select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP):
            direction.ready.append(flow)
        if event & select.EPOLLHUP or event & select.EPOLLERR:
            self._flows.pop(number)
            self._epoll.unregister(number)
            if flow.target.fileno() not in self._flows:
                flow.source.close()
                flow.target.close()


@contextmanager
def run_shaped_line(url: str, *, cores: str | None) -> Iterator[Service]:
    """Run the proxy before a service while the context is open."""
    port = free_port()
    command = [sys.executable, str(Path(__file__)), str(port), str(urlsplit(url).port)]
    with subprocess.Popen([*(["taskset", "--cpu-list", cores] if cores else []), *command]) as proxy:
        try:
            wait_for_port(port, "the shaped line does not answer")
            yield Service(f"https://127.0.0.1:{port}", proxy.pid)
        finally:
            proxy.terminate()


if __name__ == "__main__":
    Proxy(int(sys.argv[1]), int(sys.argv[2])).run()
