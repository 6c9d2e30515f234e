"""Other processes of this machine that run errands: values go in, values come out.

One interpreter uses one core. An errand is a value that can be pickled and called; what it needs for long, such as an
engine with its connections, it finds in the tools of its process. A process of the crew ends with the one that started
it, whatever ends that: nothing is done behind the back of a later run.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import pickle
import signal
import struct
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Protocol, TypeVar

from tilesync.runtime.event_loop import loop_factory, tidy_memory

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

_LENGTH = struct.Struct(">I")
_START = """\
import signal
for number in {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
    signal.signal(number, signal.SIG_IGN)  # a service manager sends them to all; who started this decides
from tilesync.runtime.process_pool import serve
serve()
"""
_FAREWELL = 5.0
"""Seconds that a process has to end when it is asked to, and again when it is killed."""

_SILENCE = 20.0
"""Seconds after which a process that has errands, and answers none of them, is killed: it may be stopped, or wait for a
disk that does not answer. Beside them those that the bytes of its errands may take.
"""

_SLOWEST = 1 << 20
"""Bytes a second that a process gets through at least."""

_TICK = 1.0

_PR_SET_PDEATHSIG = 1
"""Source: prctl(2)."""


class Lost(Exception):
    """A process ended before its errand did, fell silent, or could not be started."""


class Tools:
    """What errands of one process share."""

    def __init__(self, closing: AsyncExitStack) -> None:
        self._closing = closing
        self._lock = asyncio.Lock()
        self._kept: dict[Callable[[], AbstractAsyncContextManager[Any]], Any] = {}

    async def keep(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """What `make` makes: made and entered by the first who asks, given to all others."""
        async with self._lock:
            if make not in self._kept:
                self._kept[make] = await self._closing.enter_async_context(make())
            kept: T = self._kept[make]
            return kept


class Errand(Protocol[R_co]):
    """A piece of work, picklable as its result is."""

    async def __call__(self, tools: Tools, /) -> R_co:
        """Do it."""


class Crew:
    """Some processes, started with the first errand."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._members: list[_Member] = []
        self._starting: asyncio.Future[list[Any]] | None = None

    @property
    def called(self) -> bool:
        """Whether its processes run, or start."""
        return self._starting is not None

    def call(self, errand: Errand[object]) -> None:
        """Have every process started, and do the errand as its first. Does nothing the second time."""
        if not self.called:
            self._members = [_Member() for _ in range(self.size)]
            self._starting = asyncio.gather(*(one.do(errand) for one in self._members), return_exceptions=True)

    async def start(self, errand: Errand[object]) -> None:
        """Return when every process runs and has done the errand, or has failed to."""
        self.call(errand)
        assert self._starting is not None
        await asyncio.shield(self._starting)

    async def do(self, errand: Errand[T], *, weight: int = 0) -> T:
        """What the errand gives, by the process that has the fewest. `weight`: bytes that it is about. Raises Lost."""
        living = [member for member in self._members if member.lives]
        if not living:
            raise Lost("no process runs")
        result: T = await min(living, key=lambda member: member.busy).do(errand, weight)
        return result

    async def aclose(self) -> None:
        """Return when every process has ended, or was killed; what they were doing is left undone."""
        await asyncio.gather(*(member.aclose() for member in self._members))


class _Member:
    """One process, on this side."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[asyncio.Future[Any], int]] = {}
        self._numbers = itertools.count()
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.create_task(self._start())
        self._listening: asyncio.Task[None] | None = None
        self._watching = asyncio.create_task(self._watch())
        self._silent = 0.0

    @property
    def lives(self) -> bool:
        """Whether it has been started, and has not ended or fallen silent."""
        return self._listening is not None and not self._listening.done() and not self._watching.done()

    @property
    def busy(self) -> int:
        """How many errands it has."""
        return len(self._waiting)

    async def _start(self) -> None:
        path = os.pathsep.join(filter(None, sys.path))
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", _START, str(os.getpid())),
            env={**os.environ, "PYTHONPATH": path},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a terminal does not reach it, while it loads least of all
        )
        self._listening = asyncio.create_task(self._listen(self._process))

    async def do(self, errand: Errand[T], weight: int = 0) -> T:
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._waiting[number] = answer, weight
        try:
            await asyncio.shield(self._starting)
            assert self._process is not None
            assert self._process.stdin is not None
            self._process.stdin.write(_framed((number, errand)))
            await self._process.stdin.drain()
            result: T = await answer
        except OSError as error:
            raise Lost(str(error)) from error
        finally:
            self._waiting.pop(number, None)
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # it may be lost by two causes at once: asyncio reports what nobody looked at
        return result

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                number, done, result = pickle.loads(await _frame(process.stdout))  # noqa: S301 - from our own process
                self._silent = 0.0
                answer, _ = self._waiting.get(number, (None, 0))
                if answer is None or answer.done():
                    continue
                if done:
                    answer.set_result(result)
                else:
                    answer.set_exception(Lost(result))
        self._lose("the process ended")

    def _lose(self, why: str) -> None:
        for answer, _ in self._waiting.values():
            if not answer.done():
                answer.set_exception(Lost(why))

    async def _watch(self) -> None:
        """Kill the process when it has been silent for too long. Each tick counts once, however long it took: this
        process may have been stopped itself.
        """
        while self._silent < _SILENCE + sum(weight for _, weight in self._waiting.values()) / _SLOWEST:
            await asyncio.sleep(_TICK)
            self._silent = self._silent + _TICK if self._waiting else 0.0
        self._kill()
        self._lose("the process fell silent")  # also where it outlives that, in the hands of a disk

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def aclose(self) -> None:
        self._watching.cancel()
        with contextlib.suppress(OSError):
            await self._starting
        if self._process is None or self._listening is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        for _ in range(2):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await self._process.wait()
                    await self._listening
                    return
            self._kill()
        self._lose("the process does not end")


def _framed(what: object) -> bytes:
    data = pickle.dumps(what, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


async def _frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(_LENGTH.unpack(await reader.readexactly(_LENGTH.size))[0])


# --- the other side ---


def serve() -> None:
    """Run errands from standard input until that ends, then end at once. Its argument is who started it."""
    _end_with(int(sys.argv[1]))
    out = os.dup(1)
    os.dup2(2, 1)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(out))


async def _serve(out: int) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    under_way = set[asyncio.Task[None]]()
    tidy_memory()
    async with AsyncExitStack() as closing:
        tools = Tools(closing)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                number, errand = pickle.loads(await _frame(reader))  # noqa: S301 - from the process that started this
                task = asyncio.create_task(_run(number, errand, tools, out))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
        os._exit(0)


async def _run(number: int, errand: Callable[[Tools], Awaitable[Any]], tools: Tools, out: int) -> None:
    try:
        answer = _framed((number, True, await errand(tools)))
    except Exception as error:  # noqa: BLE001 - told to the one who waits, and in the report of a bug
        traceback.print_tb(error.__traceback__)  # not its text, which may hold a signature
        sys.stderr.write(f"{type(error).__name__} in an errand\n")
        answer = _framed((number, False, type(error).__name__))
    left = memoryview(answer)
    try:
        while left:
            left = left[os.write(out, left) :]
    except OSError:
        os._exit(0)


def _end_with(parent: int) -> None:
    """End when the parent does, also where it cannot close the pipe; elsewhere than on Linux the pipe must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
