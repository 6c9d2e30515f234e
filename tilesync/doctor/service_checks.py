"""Identity and service: from this machine's surroundings to the first byte of the latest export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from tilesync.azure.sas import left
from tilesync.core.wording import counted
from tilesync.doctor.protocols import ServiceSight
from tilesync.doctor.result import Result, Said
from tilesync.doctor.runner import Probe
from tilesync.errors import NotAuthorised, Unavailable
from tilesync.itwin.jwt import token_end
from tilesync.model import Export, SasUrl, Selector
from tilesync.protocols import Clock

SKEWED = timedelta(seconds=60)
"""A clock that is off by more is worth setting."""

SOON = timedelta(minutes=10)
"""What ends sooner may not last for a run."""

LASTING = "give --token-command, or client credentials: they get another token whenever one is due"


class ServiceChecks:
    """The checks for one iModel, or for whatever the identity sees; or for a container `link` by itself.

    `given` names the identities that are set, in the order in which they count.
    """

    def __init__(
        self, sight: ServiceSight, selector: Selector, clock: Clock, *, given: Sequence[str], link: SasUrl | None
    ) -> None:
        self._sight = sight
        self._selector = selector
        self._clock = clock
        self._given = given
        self._link = link
        self._skew: timedelta | None = None
        self._export: Export | None = None
        self._ends: tuple[datetime | None, float | None] = (None, None)

    def probes(self, proxies: Callable[[], Said], authorities: Callable[[], Said]) -> Iterator[Probe]:
        """All of them, in order."""

        async def proxy() -> Said:
            return proxies()

        async def trust() -> Said:
            return authorities()

        yield Probe("proxy", proxy)
        yield Probe("authorities", trust)
        yield Probe("reach", self._reach)
        yield Probe("clock", self._clocks, ("reach",))
        if self._link is None:
            yield Probe("identity", self._identity)
            yield Probe("token", self._token, ("identity",))
            yield Probe("api", self._api, ("reach", "identity"))
            yield Probe("export", self._latest, ("api",))
        yield Probe("link", self._life, ("export",))
        yield Probe("listing", self._listing, ("reach", "link"))
        yield Probe("tileset", self._tileset, ("reach", "link"))

    # --- the way there ---

    async def _reach(self) -> Said:
        url = self._sight.api if self._link is None else self._link.base
        host = _host(url)
        try:
            status, time = await self._sight.knock(url)
        except Unavailable as error:
            raise Unavailable(
                str(error),
                hint="look at the name of the host, at the firewall, and at `proxy` and `authorities` above;"
                f" `curl -v {urlsplit(url).scheme}://{host}/` tells more",
            ) from error
        self._skew = None if time is None else time - self._clock.now()
        return Said(f"{host} answers ({status} to someone without an identity)")

    async def _clocks(self) -> Said:
        skew = self._skew
        if skew is None:
            return Said("the server does not say its time", Result.SKIPPED)
        seconds = round(abs(skew).total_seconds())
        if abs(skew) <= SKEWED:
            return Said(f"this machine and the server agree to {max(seconds, 1)} s")
        where = "behind" if skew > timedelta() else "ahead of"
        return Said(
            f"this machine is {seconds} s {where} the server",
            Result.WARN,
            "set the clock (`timedatectl set-ntp true`): by it the ends of tokens and given links are judged;"
            " past 15 minutes Azure and S3 refuse what is signed here",
        )

    def _now(self) -> datetime:
        """The server's clock, where it is known."""
        return self._clock.now() + (self._skew or timedelta())

    # --- who asks ---

    async def _identity(self) -> Said:
        credential = await self._sight.identify()
        self._ends = token_end(credential.text.text), credential.life
        first, *others = self._given or ["an identity"]
        return Said(f"{first}" + (f" (not {', '.join(others)}, which count only without it)" if others else ""))

    async def _token(self) -> Said:
        end, life = self._ends
        if life is not None:
            return Said(f"good for {_span(timedelta(seconds=life))}; another one is fetched when it is due")
        if end is None:
            return Said("when it ends is not known: it is no JSON Web Token with `exp`")
        rest = end - self._now()
        if rest <= timedelta():
            raise NotAuthorised(f"it ended {_span(-rest)} ago ({_moment(end)})", hint=f"get a fresh one; or {LASTING}")
        said = f"good for {_span(rest)} (until {_moment(end)})"
        return Said(f"{said}: a long run may not end in time", Result.WARN, LASTING) if rest < SOON else Said(said)

    # --- what there is ---

    async def _api(self) -> Said:
        count = await self._sight.visible(self._selector)
        shown = counted(count, "export")
        of = "of this iModel" if self._selector.imodel else "of all iModels (--source names one)"
        return Said(f"it takes this identity, and its first page shows {shown} {of}")

    async def _latest(self) -> Said:
        export = await self._sight.latest(self._selector)
        self._export = export
        return Said(f"{export.id} is the latest finished one" + (f", of {export.modified}" if export.modified else ""))

    def _the_link(self) -> SasUrl:
        link = self._link or (self._export.link if self._export is not None else None)
        if link is None:
            raise Unavailable("the service gives no link to it", hint="check the permissions of the identity")
        return link

    async def _life(self) -> Said:
        link = self._the_link()
        rest, renewed = left(link, self._now()), self._link is None
        host = _host(link.base)
        if rest is None:
            return Said(f"to {host}; it does not say when it ends")
        assert link.expires is not None
        if rest <= timedelta():
            raise NotAuthorised(f"it ended {_span(-rest)} ago ({_moment(link.expires)})", hint="get a fresh link")
        said = f"to {host}, good for {_span(rest)}"
        if rest < SOON and not renewed:
            return Said(said, Result.WARN, "give --link-command to `mirror`: it prints a fresh link when that is due")
        return Said(said + ("; it is renewed when that is due" if renewed else ""))

    async def _listing(self) -> Said:
        if await self._sight.listable(self._the_link()):
            return Said("the container may be listed")
        return Said(
            "the container may not be listed: `mirror` finds the files by walking the tilesets",
            Result.WARN,
            "nothing must be done; a link with `sp=rl` lists, which also finds files that no tileset names",
        )

    async def _tileset(self) -> Said:
        size = await self._sight.root_size(self._the_link())
        return Said("tileset.json can be read" + (f", {size:,} bytes" if size is not None else ""))


def _host(url: str) -> str:
    """Host and port, without what may be secret before them."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _span(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
