"""Test the service checks of `tilesync doctor`: each failure and its message."""

from __future__ import annotations

import base64
import json
import time
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.builders import IMODEL
from tests.support.commandline import CommandResult, run_tilesync
from tests.support.faults import error_response, is_api, is_blob_named, is_listing
from tests.support.simulator import EXPORT, Simulator
from tilesync.demo.loopback_server import FakeRequest, FakeResponse

ALL_CHECKS = [
    "proxy",
    "authorities",
    "reach",
    "clock",
    "identity",
    "token",
    "api",
    "export",
    "link",
    "listing",
    "tileset",
]


def run_doctor(sim: Simulator, *arguments: object, **more: str) -> CommandResult:
    return run_tilesync("doctor", "--json", "--retry-for", "1s", "--source", IMODEL, *arguments, sim=sim, **more)


def make_jwt(end: float) -> str:
    """Make a token that states its expiry."""
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, {"exp": end}))
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "c2ln"])


def test_a_healthy_service_passes_every_check(service: Simulator) -> None:
    """A healthy service: exit 0, one line per check, in order, and the usual last line. Only one blob is listed."""
    done = run_doctor(service)
    assert (done.exit_code, list(done.checks), done.failed_checks) == (0, ALL_CHECKS, {})
    assert done.last_line["kind"] == "finished"
    assert all(line.keys() == {"kind", "name", "result", "message", "hint"} for line in done.checks.values())
    assert [request.query["maxresults"] for request in service.listing_requests] == ["1"]
    assert service.range_headers("tileset.json") == ["bytes=0-0"]
    assert EXPORT in done.checks["export"]["message"]


def test_without_json_each_check_is_a_line(service: Simulator) -> None:
    """Without --json each check is a line with a mark on stdout; -q hides the checks that are ok."""
    done = run_tilesync("doctor", "--source", IMODEL, sim=service)
    assert done.exit_code == 0
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [["ok", name] for name in ALL_CHECKS]
    assert run_tilesync("doctor", "--source", IMODEL, "-q", sim=service).stdout == ""


def test_without_an_imodel_any_visible_export_is_used(service: Simulator) -> None:
    """Without SOURCE the checks use any export that the identity can see."""
    done = run_tilesync("doctor", "--json", sim=service)
    assert (done.exit_code, done.failed_checks) == (0, {})
    assert "1 export of all iModels" in done.checks["api"]["message"]


def test_no_identity(service: Simulator) -> None:
    """Without an identity: exit 5 with a hint; the service is still checked, the checks that need one are skipped."""
    done = run_doctor(service, TILESYNC_TOKEN="")
    assert (done.exit_code, done.last_line["error"]) == (5, "NotAuthorised")
    assert done.failed_checks == {"identity": "fail"} | dict.fromkeys(ALL_CHECKS[5:], "skipped")
    assert "TILESYNC_TOKEN" in done.checks["identity"]["hint"]
    assert "`identity` failed" in done.checks["tileset"]["message"]


@pytest.mark.parametrize(("ahead", "result"), [(3600, "ok"), (200, "warn"), (-200, "fail")])
def test_the_end_of_a_token(service: Simulator, ahead: float, result: str) -> None:
    """The expiry of a JSON Web Token is checked: a past one fails, a near one warns."""
    service.token = make_jwt(time.time() + ahead)
    done = run_doctor(service)
    assert done.checks["token"]["result"] == result
    assert done.exit_code == (5 if result == "fail" else 0)
    assert ("--token-command" in done.checks["token"]["hint"]) == (result != "ok")
    assert service.token not in done.stdout + done.stderr


def test_the_end_of_client_credentials(service: Simulator) -> None:
    """The lifetime from the token endpoint is printed, and which identity is used."""
    body = json.dumps({"access_token": service.token, "expires_in": 3600}).encode()

    def answer(_: FakeRequest) -> FakeResponse:
        return FakeResponse(200, body)

    service.token_answer = answer
    identity = {"ITP_SERVICE_CLIENT_ID": "c", "ITP_SERVICE_CLIENT_SECRET": "TOPSECRET", "ITP_ISSUER_URL": service.url}
    done = run_doctor(service, TILESYNC_TOKEN="", **identity)
    assert (done.exit_code, done.failed_checks) == (0, {})
    assert "valid for 60 min" in done.checks["token"]["message"]
    assert done.checks["identity"]["message"] == "ITP_SERVICE_CLIENT_ID"
    assert "TOPSECRET" not in done.stdout + done.stderr
    both = run_doctor(service, **identity)
    assert both.checks["identity"]["message"].startswith(
        "TILESYNC_TOKEN (it takes precedence over ITP_SERVICE_CLIENT_ID"
    )


def test_a_token_that_is_refused(service: Simulator) -> None:
    """401: exit 5, and checks that need the response are skipped."""
    done = run_doctor(service, TILESYNC_TOKEN="other")
    assert (done.exit_code, done.failed_checks) == (5, {"api": "fail"} | dict.fromkeys(ALL_CHECKS[7:], "skipped"))
    assert done.checks["api"]["hint"]


def test_an_identity_without_access_ends_with_5(service: Simulator) -> None:
    """403: exit 5, and a hint how to add a service application as a member."""
    service.add_fault(is_api, error_response(403), times=None)
    done = run_doctor(service)
    assert (done.exit_code, done.checks["api"]["result"]) == (5, "fail")
    assert "member of its iTwin" in done.checks["api"]["hint"]


def test_no_export() -> None:
    """An empty list: exit 4, and a hint that the membership may be missing."""
    with Simulator() as sim:
        done = run_doctor(sim)
    assert (done.exit_code, done.last_line["error"]) == (4, "NoExport")
    assert done.failed_checks == {"export": "fail"} | dict.fromkeys(ALL_CHECKS[8:], "skipped")
    assert "member of its iTwin" in done.checks["export"]["hint"]


def test_no_finished_export(service: Simulator) -> None:
    """An unfinished export does not count: exit 4 at once, without waiting."""
    service.exports[0]["status"] = "InProgress"
    done = run_doctor(service)
    assert (done.exit_code, done.checks["export"]["result"]) == (4, "fail")
    assert "no matching export is Complete yet" in done.checks["export"]["message"]


def test_a_container_that_may_not_be_listed(service: Simulator) -> None:
    """A link that cannot list gives a warning: the mirror walks the tilesets then."""
    service.add_fault(is_listing, error_response(403, "AuthorizationPermissionMismatch"), times=None)
    done = run_doctor(service)
    assert (done.exit_code, done.failed_checks) == (0, {"listing": "warn"})
    assert "sp=rl" in done.checks["listing"]["hint"]


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "kind"),
    [
        (403, "AuthenticationFailed", 5, "NotAuthorised"),
        (404, "BlobNotFound", 3, "Incomplete"),
        (404, "ContainerNotFound", 7, "ExportReplaced"),
        (503, "ServerBusy", 6, "Unavailable"),
    ],
)
def test_a_root_that_cannot_be_read(service: Simulator, status: int, code: str, exit_code: int, kind: str) -> None:
    """The exit code is that of the error class."""
    service.add_fault(is_blob_named("tileset.json"), error_response(status, code), times=None)
    done = run_doctor(service)
    assert (done.exit_code, done.last_line["error"], done.failed_checks) == (exit_code, kind, {"tileset": "fail"})
    assert done.checks["tileset"]["hint"]


@pytest.mark.parametrize(("ahead", "where"), [(125, "behind"), (-125, "ahead of")])
def test_a_clock_that_is_off(service: Simulator, ahead: float, where: str) -> None:
    """A clock that is off by more than a minute gives a warning with its consequences."""
    service.clock_offset = timedelta(seconds=ahead)
    done = run_doctor(service)
    assert (done.exit_code, done.failed_checks) == (0, {"clock": "warn"})
    assert f" s {where} the server" in done.checks["clock"]["message"]
    assert "timedatectl" in done.checks["clock"]["hint"]


def test_a_service_that_cannot_be_reached(tmp_path: Path) -> None:
    """An unreachable service: exit 6 with a hint; all checks that need it are skipped."""
    done = run_tilesync(
        "doctor", "--json", "--retry-for", "0s", TILESYNC_API_URL="http://127.0.0.1:9", TILESYNC_TOKEN="t"
    )
    assert (done.exit_code, done.last_line["error"]) == (6, "Unavailable")
    assert done.failed_checks == {"reach": "fail", "clock": "skipped"} | dict.fromkeys(ALL_CHECKS[6:], "skipped")
    assert "firewall" in done.checks["reach"]["hint"]


def test_proxies_are_shown_without_credentials(service: Simulator) -> None:
    """The proxy check prints the variable and the address, never the credentials."""
    done = run_doctor(service, HTTPS_PROXY="http://me:TOPSECRET@proxy.example:3128", no_proxy="127.0.0.1")
    assert done.exit_code == 0
    message = done.checks["proxy"]["message"]
    assert message == "HTTPS_PROXY: http://proxy.example:3128 (with credentials); not for 127.0.0.1"
    assert "TOPSECRET" not in done.stdout + done.stderr


def test_a_missing_ca_file_is_reported(service: Simulator, tmp_path: Path) -> None:
    """A missing CA file gives a warning with a hint."""
    lost = run_doctor(service, SSL_CERT_FILE=str(tmp_path / "none.pem"))
    assert (lost.failed_checks, lost.checks["authorities"]["hint"]) == (
        {"authorities": "warn"},
        "correct or unset SSL_CERT_FILE",
    )


def test_a_container_link_needs_no_identity(service: Simulator) -> None:
    """With a link as SOURCE only the container is checked; its expiry is printed, its signature is not."""
    link = service.create_link(EXPORT)
    done = run_tilesync("doctor", "--json", "--source", "-", stdin=link)
    assert (done.exit_code, list(done.checks), done.failed_checks) == (
        0,
        [name for name in ALL_CHECKS if name not in {"identity", "token", "api", "export"}],
        {},
    )
    assert "valid for" in done.checks["link"]["message"]
    assert "sig=" not in done.stdout + done.stderr
    service.link_lifetime = timedelta(seconds=-30)
    ended = run_tilesync("doctor", "--json", TILESYNC_SOURCE=service.create_link(EXPORT))
    assert (ended.exit_code, ended.failed_checks) == (5, {"link": "fail", "listing": "skipped", "tileset": "skipped"})
    assert service.requests[-1].query == {}


def test_hosting_options_without_a_destination_are_a_usage_error() -> None:
    """--origin and --public-url without DEST are a usage error."""
    for options in (("--origin", "https://a.example"), ("--public-url", "https://a.example")):
        assert run_tilesync("doctor", *options, "--json").exit_code == 2
    with Simulator() as sim:
        sim.offer_export()
        assert run_doctor(sim, TILESYNC_ORIGIN="https://a.example").exit_code == 0
