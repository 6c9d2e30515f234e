"""Identity and service: from this machine's surroundings to the first byte of the latest export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from tilesync.azure.sas import time_left
from tilesync.core.wording import format_count
from tilesync.doctor.protocols import ServiceProber
from tilesync.doctor.result import CheckResult, CheckStatus
from tilesync.doctor.runner import Check
from tilesync.errors import NotAuthorised, Unavailable
from tilesync.itwin.jwt import token_expiry
from tilesync.model import Export, SasUrl, Selector
from tilesync.protocols import Clock

MAX_CLOCK_SKEW = timedelta(seconds=60)
"""A clock that is off by more is worth setting."""

MIN_REMAINING_LIFETIME = timedelta(minutes=10)
"""What ends sooner may not last for a run."""

RENEWABLE_TOKEN_HINT = "give --token-command, or client credentials: they get another token whenever one is due"


class ServiceChecks:
    """The checks for one iModel, or for whatever the identity sees; or for a container `link` by itself.

    `given` names the identities that are set, in the order in which they count.
    """

    def __init__(
        self,
        prober: ServiceProber,
        selector: Selector,
        clock: Clock,
        *,
        identity_names: Sequence[str],
        link: SasUrl | None,
    ) -> None:
        self._prober = prober
        self._selector = selector
        self._clock = clock
        self._identity_names = identity_names
        self._link = link
        self._skew: timedelta | None = None
        self._export: Export | None = None
        self._token_lifetime: tuple[datetime | None, float | None] = (None, None)

    def iter_checks(
        self, check_proxies: Callable[[], CheckResult], check_authorities: Callable[[], CheckResult]
    ) -> Iterator[Check]:
        """All of them, in order."""

        async def proxy() -> CheckResult:
            return check_proxies()

        async def trust() -> CheckResult:
            return check_authorities()

        yield Check("proxy", proxy)
        yield Check("authorities", trust)
        yield Check("reach", self._check_connection)
        yield Check("clock", self._check_clock, ("reach",))
        if self._link is None:
            yield Check("identity", self._check_identity)
            yield Check("token", self._check_token, ("identity",))
            yield Check("api", self._check_api, ("reach", "identity"))
            yield Check("export", self._check_export, ("api",))
        yield Check("link", self._check_link, ("export",))
        yield Check("listing", self._check_listing, ("reach", "link"))
        yield Check("tileset", self._check_tileset, ("reach", "link"))

    # --- the way there ---

    async def _check_connection(self) -> CheckResult:
        url = self._prober.api_url if self._link is None else self._link.base
        host = _host(url)
        try:
            status, time = await self._prober.ping(url)
        except Unavailable as error:
            raise Unavailable(
                str(error),
                hint="look at the name of the host, at the firewall, and at `proxy` and `authorities` above;"
                f" `curl -v {urlsplit(url).scheme}://{host}/` tells more",
            ) from error
        self._skew = None if time is None else time - self._clock.now()
        return CheckResult(f"{host} answers ({status} to someone without an identity)")

    async def _check_clock(self) -> CheckResult:
        skew = self._skew
        if skew is None:
            return CheckResult("the server does not say its time", CheckStatus.SKIPPED)
        seconds = round(abs(skew).total_seconds())
        if abs(skew) <= MAX_CLOCK_SKEW:
            return CheckResult(f"this machine and the server agree to {max(seconds, 1)} s")
        where = "behind" if skew > timedelta() else "ahead of"
        return CheckResult(
            f"this machine is {seconds} s {where} the server",
            CheckStatus.WARN,
            "set the clock (`timedatectl set-ntp true`): by it the ends of tokens and given links are judged;"
            " past 15 minutes Azure and S3 refuse what is signed here",
        )

    def _server_now(self) -> datetime:
        """The server's clock, where it is known."""
        return self._clock.now() + (self._skew or timedelta())

    # --- who asks ---

    async def _check_identity(self) -> CheckResult:
        credential = await self._prober.fetch_credential()
        self._token_lifetime = token_expiry(credential.text.text), credential.lifetime_s
        first, *others = self._identity_names or ["an identity"]
        return CheckResult(f"{first}" + (f" (not {', '.join(others)}, which count only without it)" if others else ""))

    async def _check_token(self) -> CheckResult:
        end, life = self._token_lifetime
        if life is not None:
            return CheckResult(
                f"good for {_format_duration(timedelta(seconds=life))}; another one is fetched when it is due"
            )
        if end is None:
            return CheckResult("when it ends is not known: it is no JSON Web Token with `exp`")
        rest = end - self._server_now()
        if rest <= timedelta():
            raise NotAuthorised(
                f"it ended {_format_duration(-rest)} ago ({_format_time(end)})",
                hint=f"get a fresh one; or {RENEWABLE_TOKEN_HINT}",
            )
        said = f"good for {_format_duration(rest)} (until {_format_time(end)})"
        return (
            CheckResult(f"{said}: a long run may not end in time", CheckStatus.WARN, RENEWABLE_TOKEN_HINT)
            if rest < MIN_REMAINING_LIFETIME
            else CheckResult(said)
        )

    # --- what there is ---

    async def _check_api(self) -> CheckResult:
        count = await self._prober.count_exports(self._selector)
        shown = format_count(count, "export")
        of = "of this iModel" if self._selector.imodel else "of all iModels (--source names one)"
        return CheckResult(f"it takes this identity, and its first page shows {shown} {of}")

    async def _check_export(self) -> CheckResult:
        export = await self._prober.fetch_latest(self._selector)
        self._export = export
        return CheckResult(
            f"{export.id} is the latest finished one" + (f", of {export.modified}" if export.modified else "")
        )

    def _require_link(self) -> SasUrl:
        link = self._link or (self._export.link if self._export is not None else None)
        if link is None:
            raise Unavailable("the service gives no link to it", hint="check the permissions of the identity")
        return link

    async def _check_link(self) -> CheckResult:
        link = self._require_link()
        rest, renewed = time_left(link, self._server_now()), self._link is None
        host = _host(link.base)
        if rest is None:
            return CheckResult(f"to {host}; it does not say when it ends")
        assert link.expires is not None
        if rest <= timedelta():
            raise NotAuthorised(
                f"it ended {_format_duration(-rest)} ago ({_format_time(link.expires)})", hint="get a fresh link"
            )
        said = f"to {host}, good for {_format_duration(rest)}"
        if rest < MIN_REMAINING_LIFETIME and not renewed:
            return CheckResult(
                said, CheckStatus.WARN, "give --link-command to `mirror`: it prints a fresh link when that is due"
            )
        return CheckResult(said + ("; it is renewed when that is due" if renewed else ""))

    async def _check_listing(self) -> CheckResult:
        if await self._prober.can_list(self._require_link()):
            return CheckResult("the container may be listed")
        return CheckResult(
            "the container may not be listed: `mirror` finds the files by walking the tilesets",
            CheckStatus.WARN,
            "nothing must be done; a link with `sp=rl` lists, which also finds files that no tileset names",
        )

    async def _check_tileset(self) -> CheckResult:
        size = await self._prober.fetch_root_size(self._require_link())
        return CheckResult("tileset.json can be read" + (f", {size:,} bytes" if size is not None else ""))


def _host(url: str) -> str:
    """Host and port, without what may be secret before them."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _format_duration(duration: timedelta) -> str:
    seconds = int(duration.total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _format_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
