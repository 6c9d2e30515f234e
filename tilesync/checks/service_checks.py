"""Service checks: from the network settings of this machine to the first byte of the latest export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from tilesync.azure.sas import time_left
from tilesync.checks.result import CheckResult, CheckStatus
from tilesync.checks.runner import Check
from tilesync.checks.service_probe import ServiceProbe
from tilesync.core.wording import format_count
from tilesync.errors import NotAuthorised, Unavailable
from tilesync.itwin.jwt import token_expiry
from tilesync.model import Export, SasUrl, Selector
from tilesync.protocols import Clock

MAX_CLOCK_SKEW = timedelta(seconds=60)
"""Clock difference from which the check warns."""

MIN_REMAINING_LIFETIME = timedelta(minutes=10)
"""Remaining lifetime below which a token or link may end before a run does."""

RENEWABLE_IDENTITY_HINT = "use --token-command or client credentials: they renew the token when needed"


class ServiceChecks:
    """Checks of the service for one iModel or for all that the identity can see; or of only a container `link`.

    `identity_names`: settings of the configured identities, in order of precedence.
    """

    def __init__(
        self,
        prober: ServiceProbe,
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
        """Yield all checks in order."""

        async def proxies() -> CheckResult:
            return check_proxies()

        async def authorities() -> CheckResult:
            return check_authorities()

        yield Check("proxy", proxies)
        yield Check("authorities", authorities)
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

    # --- connection ---

    async def _check_connection(self) -> CheckResult:
        url = self._prober.api_url if self._link is None else self._link.base
        host = _host(url)
        try:
            status, time = await self._prober.ping(url)
        except Unavailable as error:
            raise Unavailable(
                str(error),
                hint="check the host name, the firewall, and `proxy` and `authorities` above;"
                f" `curl -v {urlsplit(url).scheme}://{host}/` shows more",
            ) from error
        self._skew = None if time is None else time - self._clock.now()
        return CheckResult(f"{host} answers ({status} without an identity)")

    async def _check_clock(self) -> CheckResult:
        skew = self._skew
        if skew is None:
            return CheckResult("the server does not state its time", CheckStatus.SKIPPED)
        seconds = round(abs(skew).total_seconds())
        if abs(skew) <= MAX_CLOCK_SKEW:
            return CheckResult(f"the clocks of this machine and the server agree within {max(seconds, 1)} s")
        direction = "behind" if skew > timedelta() else "ahead of"
        return CheckResult(
            f"this machine is {seconds} s {direction} the server",
            CheckStatus.WARN,
            "set the clock (`timedatectl set-ntp true`): tilesync needs it to know when tokens and links expire;"
            " if it is wrong by 15 minutes, Azure and S3 refuse the signatures of this machine",
        )

    def _server_now(self) -> datetime:
        """Return the server's time if it is known, else the local time."""
        return self._clock.now() + (self._skew or timedelta())

    # --- identity ---

    async def _check_identity(self) -> CheckResult:
        credential = await self._prober.fetch_credential()
        self._token_lifetime = token_expiry(credential.text.text), credential.lifetime_s
        first, *others = self._identity_names or ["an identity"]
        return CheckResult(f"{first}" + (f" (it takes precedence over {', '.join(others)})" if others else ""))

    async def _check_token(self) -> CheckResult:
        expiry, lifetime_s = self._token_lifetime
        if lifetime_s is not None:
            return CheckResult(
                f"valid for {_format_duration(timedelta(seconds=lifetime_s))}; it is renewed when needed"
            )
        if expiry is None:
            return CheckResult("its expiry is unknown: it is not a JSON Web Token with `exp`")
        remaining = expiry - self._server_now()
        if remaining <= timedelta():
            raise NotAuthorised(
                f"it expired {_format_duration(-remaining)} ago ({_format_time(expiry)})",
                hint=f"get a new token; or {RENEWABLE_IDENTITY_HINT}",
            )
        message = f"valid for {_format_duration(remaining)} (until {_format_time(expiry)})"
        return (
            CheckResult(f"{message}: a long run may take longer", CheckStatus.WARN, RENEWABLE_IDENTITY_HINT)
            if remaining < MIN_REMAINING_LIFETIME
            else CheckResult(message)
        )

    # --- exports and containers ---

    async def _check_api(self) -> CheckResult:
        count = await self._prober.count_exports(self._selector)
        exports = format_count(count, "export")
        scope = "of this iModel" if self._selector.imodel else "of all iModels (--source selects one)"
        return CheckResult(f"it accepts this identity; the first page shows {exports} {scope}")

    async def _check_export(self) -> CheckResult:
        export = await self._prober.fetch_latest(self._selector)
        self._export = export
        return CheckResult(
            f"{export.id} is the latest finished export" + (f", of {export.modified}" if export.modified else "")
        )

    def _require_link(self) -> SasUrl:
        link = self._link or (self._export.link if self._export is not None else None)
        if link is None:
            raise Unavailable("the service returns no link to the export", hint="check the permissions of the identity")
        return link

    async def _check_link(self) -> CheckResult:
        link = self._require_link()
        remaining, is_renewable = time_left(link, self._server_now()), self._link is None
        host = _host(link.base)
        if remaining is None:
            return CheckResult(f"to {host}; it states no expiry")
        assert link.expires is not None
        if remaining <= timedelta():
            raise NotAuthorised(
                f"it expired {_format_duration(-remaining)} ago ({_format_time(link.expires)})", hint="get a new link"
            )
        message = f"to {host}, valid for {_format_duration(remaining)}"
        if remaining < MIN_REMAINING_LIFETIME and not is_renewable:
            return CheckResult(
                message,
                CheckStatus.WARN,
                "use `mirror --link-command`, with a command that prints a new link when needed",
            )
        return CheckResult(message + ("; it is renewed when needed" if is_renewable else ""))

    async def _check_listing(self) -> CheckResult:
        if await self._prober.can_list(self._require_link()):
            return CheckResult("the link can list the container")
        return CheckResult(
            "the link cannot list the container: `mirror` finds the files by walking the tilesets",
            CheckStatus.WARN,
            "nothing to do; a link with `sp=rl` can list, and also finds files that no tileset references",
        )

    async def _check_tileset(self) -> CheckResult:
        size = await self._prober.fetch_root_size(self._require_link())
        return CheckResult("tileset.json is readable" + (f", {size:,} bytes" if size is not None else ""))


def _host(url: str) -> str:
    """Return host and port of a URL, without the credentials in front of them."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _format_duration(duration: timedelta) -> str:
    seconds = int(duration.total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _format_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
