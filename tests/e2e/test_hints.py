"""Test the hints: for each cause its message and a hint that helps.

A hint must be able to help in exactly its case. Where nothing does there is none: that is better than a wrong one.
"""

from __future__ import annotations

import asyncio
import base64
import time
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.builders import IMODEL, export, tileset
from tests.support.commandline import run_tilesync
from tests.support.faults import error_response, flip_last_bit, is_api, is_blob_named, is_listing, is_storage
from tests.support.simulator import EXPORT, JobOutcome, Simulator
from tilesync.app.locations import parse_location
from tilesync.azure.error_hints import storage_hint
from tilesync.azure.sas import parse_sas_link
from tilesync.demo.faults import RequestMatcher
from tilesync.errors import LinkRefused, NotAuthorised, TilesyncError, UsageError
from tilesync.itwin.auth import read_token_file
from tilesync.model import Inventory, SasUrl
from tilesync.stores.azure import credentials as account
from tilesync.stores.azure import errors as azure_replies
from tilesync.stores.azure.sas_link import make_store_link
from tilesync.stores.s3 import errors as s3_replies
from tilesync.transport.connect_errors import permanent_error

RUN_AGAIN_HINT = "run the same command again"
RUN_LATER_HINT = "run the same command again later"
FRESH_LINK_HINT = "run the same command with a fresh link"
TILE = "tiles/003.glb"


class HintCase(NamedTuple):
    """A fault, the expected error class, a part of the message, and a part of the hint ("": none)."""

    when: RequestMatcher
    status: int
    code: str
    kind: str
    sentence: str
    hint: str
    inventory: str | None = None


everything, tile = is_storage, is_blob_named(TILE)

LINK_CASES = [
    HintCase(everything, 403, "AuthenticationFailed", "NotAuthorised", "refused to be listed", "the link is complete"),
    HintCase(everything, 403, "AuthorizationFailure", "NotAuthorised", "AuthorizationFailure", "firewall"),
    HintCase(everything, 403, "AuthorizationSourceIPMismatch", "NotAuthorised", "SourceIP", "(`sip=`): run from one"),
    HintCase(everything, 403, "AuthorizationProtocolMismatch", "NotAuthorised", "Protocol", "`spr=https`"),
    HintCase(everything, 403, "AuthorizationServiceMismatch", "NotAuthorised", "Service", "`ss=b`"),
    HintCase(everything, 403, "AuthorizationResourceTypeMismatch", "NotAuthorised", "Resource", "`srt=co`"),
    HintCase(everything, 403, "AuthorizationPermissionMismatch", "NotAuthorised", "Permission", "allows reading"),
    HintCase(
        everything, 403, "AccountIsDisabled", "NotAuthorised", "AccountIsDisabled", "only its owner can enable it"
    ),
    HintCase(
        everything, 403, "KeyBasedAuthenticationNotPermitted", "NotAuthorised", "KeyBased", "a user delegation SAS"
    ),
    HintCase(
        everything, 403, "KeyVaultEncryptionKeyNotFound", "NotAuthorised", "KeyVault", "key in Key Vault: its owner"
    ),
    HintCase(everything, 409, "PublicAccessNotPermitted", "NotAuthorised", "PublicAccess", "copy the complete link"),
    HintCase(everything, 400, "InvalidQueryParameterValue", "Unavailable", "answered 400", "the link is damaged"),
    HintCase(
        everything, 404, "ContainerNotFound", "ExportReplaced", "replaced or deleted", "link of the newest export"
    ),
    HintCase(everything, 407, "", "Unavailable", "a proxy wants a user name", "HTTPS_PROXY, as http://USER:PASSWORD@"),
    HintCase(everything, 302, "", "Unavailable", "answered 302", "a gateway or a login page"),
    HintCase(everything, 418, "", "Unavailable", "answered 418", ""),
    HintCase(everything, 429, "", "Unavailable", "kept failing", RUN_LATER_HINT),
    HintCase(everything, 500, "InternalError", "Unavailable", "kept failing", RUN_LATER_HINT),
    HintCase(everything, 503, "ServerBusy", "Unavailable", "kept failing", RUN_LATER_HINT),
    HintCase(is_listing, 403, "AuthorizationPermissionMismatch", "ListingDenied", "refused", "allows listing", "list"),
    HintCase(is_listing, 403, "AccountIsDisabled", "ListingDenied", "refused", "only its owner can enable it", "list"),
    HintCase(tile, 403, "AuthorizationPermissionMismatch", "NotAuthorised", f"refused {TILE}", "allows reading"),
    HintCase(tile, 404, "BlobNotFound", "Incomplete", "1 file failed", RUN_AGAIN_HINT),
    HintCase(tile, 409, "BlobArchived", "Incomplete", "1 file failed", "archive tier: its owner must first move it"),
    HintCase(tile, 409, "BlobBeingRehydrated", "Incomplete", "1 file failed", "try again in some hours"),
    HintCase(
        tile, 409, "BlobUsesCustomerSpecifiedEncryption", "Incomplete", "1 file failed", "a key that only its writer"
    ),
    HintCase(tile, 407, "", "Incomplete", "1 file failed", "HTTPS_PROXY"),
    HintCase(tile, 418, "", "Incomplete", "1 file failed", "another run will be refused as well"),
    HintCase(tile, 412, "ConditionNotMet", "ExportReplaced", "replaced or deleted", "link of the newest export"),
]  # fmt: skip

SERVICE_CASES = [
    HintCase(is_api, 400, "", "InvalidRequest", "invalid (400)", "correct the ids or options"),
    HintCase(is_api, 401, "", "NotAuthorised", "refuses the token", "put a fresh one in TILESYNC_TOKEN"),
    HintCase(is_api, 403, "", "NotAuthorised", "may not see these exports", "is a member of its iTwin"),
    HintCase(is_api, 404, "", "NoExport", "finds no such iModel or export", "check the iModel id and --api-url"),
    HintCase(is_api, 405, "", "Unavailable", "answered 405", "is --api-url (TILESYNC_API_URL) the service's address?"),
    HintCase(is_api, 407, "", "Unavailable", "a proxy wants a user name", "HTTPS_PROXY"),
    HintCase(is_api, 302, "", "Unavailable", "answered 302", "a gateway or a login page"),
    HintCase(is_api, 409, "", "Unavailable", "answered 409", "is --api-url (TILESYNC_API_URL) the service's address?"),
    HintCase(is_api, 422, "", "InvalidRequest", "invalid (422)", "correct the ids or options"),
    HintCase(is_api, 429, "", "Unavailable", "kept failing", RUN_LATER_HINT),
    HintCase(is_api, 500, "", "Unavailable", "kept failing", RUN_LATER_HINT),
    HintCase(is_api, 503, "", "Unavailable", "kept failing", RUN_LATER_HINT),
    HintCase(
        everything, 403, "AuthenticationFailed", "NotAuthorised", "also through a fresh link", "rewrite their URLs"
    ),
    HintCase(everything, 403, "AccountIsDisabled", "NotAuthorised", "also through a fresh link", "only its owner"),
    HintCase(
        everything, 404, "ContainerNotFound", "ExportReplaced", "the container is gone", "looks up the newest export"
    ),
]  # fmt: skip


def assert_error(result: TilesyncError | None, kind: str, sentence: str, hint: str) -> None:
    """Assert class, message and hint of an error; a permanent error must not advise another run."""
    assert result is not None
    assert (type(result).__name__, sentence in str(result)) == (kind, True), result
    assert result.hint == "" if not hint else hint in result.hint, result.hint
    assert hint.startswith(RUN_AGAIN_HINT) or RUN_AGAIN_HINT not in result.hint
    assert "member" in hint or "member" not in result.hint


@pytest.mark.parametrize("row", LINK_CASES, ids=lambda row: f"{row.status}-{row.code or row.sentence}")
def test_storage_errors_of_a_link_have_hints(row: HintCase, tmp_path: Path) -> None:
    """Each error of the storage of a link has a hint for exactly that error."""
    with Simulator() as sim:
        sim.offer_export()
        sim.add_fault(row.when, error_response(row.status, row.code), times=None)
        more = {"inventory": Inventory(row.inventory)} if row.inventory else {}
        run = sim.mirror(tmp_path, link=sim.create_link(EXPORT), retry_for=timedelta(0), **more)
    assert_error(run.error, row.kind, row.sentence, row.hint)


@pytest.mark.parametrize("row", SERVICE_CASES, ids=lambda row: f"{row.status}-{row.code or row.sentence}")
def test_an_imodel(row: HintCase, tmp_path: Path) -> None:
    """Each error of the service, and of the storage of its links, has a hint for exactly that error."""
    with Simulator() as sim:
        sim.offer_export()
        sim.add_fault(row.when, error_response(row.status, row.code), times=None)
        run = sim.mirror(tmp_path, retry_for=timedelta(0))
    assert_error(run.error, row.kind, row.sentence, row.hint)


# --- files that fail, references that lead nowhere ---


def test_bytes_that_stay_wrong(tmp_path: Path) -> None:
    """The hint for a file that is damaged in the container does not promise that another run helps."""
    with Simulator() as sim:
        sim.offer_export()
        sim.add_fault(tile, flip_last_bit, times=None)
        run = sim.mirror(tmp_path)
    assert_error(run.error, "Incomplete", "1 file failed", "another run fetches the same bytes")


def test_failures_of_two_kinds(tmp_path: Path) -> None:
    """If another run helps with only some failures, the hint says both."""
    with Simulator() as sim:
        sim.offer_export()
        sim.add_fault(tile, error_response(409, "BlobArchived"), times=None)
        sim.add_fault(is_blob_named("tiles/004.glb"), error_response(404, "BlobNotFound"), times=None)
        run = sim.mirror(tmp_path)
    assert run.error is not None
    assert run.error.hint.startswith("the blob is in the archive tier")
    assert f"; for the other files: {RUN_AGAIN_HINT}" in run.error.hint


def mirror_with_references(tmp_path: Path, *uris: str) -> JobOutcome:
    """Mirror an export whose root has these additional references."""
    with Simulator() as sim:
        sim.offer_export({**export(), "tileset.json": tileset("tiles/tileset.json", *uris)})
        return sim.mirror(tmp_path)


def test_the_hint_of_a_missing_file(tmp_path: Path) -> None:
    """The hint of a missing file names --allow-missing; a reference that no copy can follow is explained."""
    result = mirror_with_references(tmp_path / "a", "gone.glb").error
    assert_error(
        result, "Incomplete", "1 file that the tilesets refer to is not in the container", "with --allow-missing"
    )
    result = mirror_with_references(tmp_path / "b", "%FF.glb").error
    assert_error(
        result,
        "Incomplete",
        "1 reference of the tilesets cannot be followed (",
        "a copy lacks the tiles behind such references",
    )
    assert "not in the container" not in str(result)
    both = mirror_with_references(tmp_path / "c", "gone.glb", "%FF.glb").error
    assert_error(both, "Incomplete", "is not in the container; 1 reference", "if the export itself lacks them")


# --- stores ---

READS, WRITES = "(`sp=rl`)", "(`sp=racwdl`)"
AZURE_CASES = [
    ("read", 403, "AuthorizationPermissionMismatch", "az://a/c refuses x", READS),
    ("put", 403, "AuthorizationPermissionMismatch", "az://a/c refuses x", WRITES),
    ("delete", 403, "AuthorizationPermissionMismatch", "az://a/c refuses x", WRITES),
    ("put", 403, "AuthorizationFailure", "az://a/c refuses x", "firewall"),
    ("put", 403, "AccountIsDisabled", "az://a/c refuses x", "only its owner"),
    ("put", 403, "KeyVaultVaultNotFound", "az://a/c refuses x", "key in Key Vault: its owner"),
    ("read", 404, "ContainerNotFound", "there is no container at az://a/c", "check the name"),
    ("put", 404, "ContainerNotFound", "there is no container at az://a/c", "--create-container` creates it"),
    ("read", 409, "BlobArchived", "x cannot be read from az://a/c", "archive tier"),
    (
        "read",
        409,
        "BlobUsesCustomerSpecifiedEncryption",
        "x cannot be read from az://a/c",
        "a key that only its writer",
    ),
    ("put", 409, "BlobImmutableDueToPolicy", "x cannot be put into az://a/c", "policy of the container"),
    ("delete", 409, "BlobImmutableDueToPolicy", "x cannot be deleted from az://a/c", "policy of the container"),
    ("put", 412, "LeaseIdMissing", "x cannot be put into az://a/c", "break the lease, or wait"),
    ("read", 400, "InvalidUri", "x cannot be read from az://a/c", ""),
]


@pytest.mark.parametrize(("act", "status", "code", "sentence", "hint"), AZURE_CASES)
def test_a_container_that_is_written_to(
    act: azure_replies.BlobOperation, status: int, code: str, sentence: str, hint: str
) -> None:
    """Hints for Azure depend on the operation: reading needs other permissions than writing."""
    header = {"x-ms-error-code": code}.get
    with pytest.raises(TilesyncError) as raised:
        azure_replies.raise_for_status(status, header, b"", "x", "az://a/c", operation=act)
    assert sentence in str(raised.value)
    assert raised.value.hint == "" if not hint else hint in raised.value.hint


def test_links_that_were_just_made() -> None:
    """A refused signature of a generated link: the hint names the key and the clock, not quotes."""

    def sign() -> SasUrl:
        return parse_sas_link("https://a.blob.core.windows.net/c?sp=rl&sig=x", fetched=time.monotonic())

    def refuse(link: SasUrl) -> None:
        raise LinkRefused("az://a/c refuses x", hint=storage_hint("AuthenticationFailed"))

    with pytest.raises(NotAuthorised) as raised:
        make_store_link(sign, lambda event: None, first=sign()).use(refuse)
    assert "AZURE_STORAGE_KEY" in raised.value.hint
    with pytest.raises(NotAuthorised) as raised:
        make_store_link(None, lambda event: None, first=sign()).use(refuse)
    assert "check that the link is complete" in raised.value.hint


def test_entra_is_not_installed_twice() -> None:
    """The hint to install the Entra package appears only if it is missing."""
    from azure.core.exceptions import ClientAuthenticationError

    with pytest.raises(NotAuthorised) as raised, account._translate_errors("a link cannot be signed"):
        raise ClientAuthenticationError("no token")
    assert "az login" in raised.value.hint
    assert "pip install" not in raised.value.hint


S3 = [
    ("read", 403, "AccessDenied", "s3://b/ refuses x", "s3:GetObject on its objects"),
    ("write", 403, "AccessDenied", "s3://b/ refuses x", "s3:PutObject"),
    ("read", 403, "InvalidObjectState", "x in s3://b/ is archived", "restore it first"),
    ("read", 403, "AllAccessDisabled", "refuses the credentials", "only its owner"),
    ("write", 403, "SignatureDoesNotMatch", "refuses the credentials", "AWS_SECRET_ACCESS_KEY"),
    ("write", 403, "RequestTimeTooSkewed", "refuses the credentials", "clock"),
    ("write", 400, "KMS.DisabledException", "rejects a request about x", "the key that encrypts the bucket"),
    ("read", 404, "NoSuchBucket", "there is no bucket at s3://b/", "check the name, and --endpoint-url"),
    ("write", 404, "NoSuchBucket", "there is no bucket at s3://b/", "or make the bucket"),
    ("write", 405, "MethodNotAllowed", "rejects a request about x", "--endpoint-url"),
    ("write", 501, "NotImplemented", "rejects a request about x", "does not support SHA-256 checksums"),
    ("replace", 501, "NotImplemented", "rejects a request about x", "must support conditional writes"),
    ("write", 301, "PermanentRedirect", "another region", "AWS_REGION"),
    ("write", 507, "XMinioStorageFull", "has no room", "free some space"),
]


@pytest.mark.parametrize(("act", "status", "code", "sentence", "hint"), S3)
def test_a_bucket(act: s3_replies.ObjectOperation, status: int, code: str, sentence: str, hint: str) -> None:
    """Hints for S3 depend on the operation."""
    with pytest.raises(TilesyncError) as raised:
        s3_replies.raise_for_response(status, code, "x", "s3://b/", operation=act)
    assert sentence in str(raised.value)
    assert hint in raised.value.hint
    assert "AWS_REQUEST_CHECKSUM_CALCULATION" not in raised.value.hint or status == 501


def test_a_state_folder_that_cannot_be_used() -> None:
    """The hint for the default state folder of a store names the option that moves it."""
    done = run_tilesync(
        "mirror", IMODEL, "https://127.0.0.1:9/account/tiles?sig=x", "--json",
        TILESYNC_TOKEN="t", XDG_STATE_HOME="/proc/nowhere",
    )  # fmt: skip
    assert (done.last_line["exit"], done.last_line["error"]) == (8, "DestinationError")
    assert done.last_line["message"].startswith("cannot use /proc/nowhere/")
    assert "--state-dir" in done.last_line["hint"]


# --- links and tokens as they are pasted ---


@pytest.mark.parametrize("resource", ["b", "bs", "bv"])
def test_a_link_for_one_file(resource: str) -> None:
    """A link that signs one blob is refused before any request, with a hint which link to get."""
    with pytest.raises(UsageError, match="for a single file") as raised:
        parse_sas_link(f"https://a.blob.core.windows.net/c/tileset.json?sv=1&sr={resource}&sp=r&sig=SECRET")
    assert "`sr=c`" in raised.value.hint
    assert "SECRET" not in str(raised.value)


def test_marks_of_byte_order(tmp_path: Path) -> None:
    """A link or token with a byte order mark, or in UTF-16, as editors and shells write, is accepted."""
    text = "https://acc.blob.core.windows.net/tiles?sp=racwdl&sig=x"
    assert parse_sas_link(f"\ufeff{text}\r\n").base == "https://acc.blob.core.windows.net/tiles"
    assert str(parse_location(f"\ufeff{text}")) == str(parse_location(text))
    token = base64.b64encode(b"token").decode()
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "token").write_bytes(f"{token}\r\n".encode(encoding))
        assert asyncio.run(read_token_file(tmp_path / "token"))[0].text == token


# --- names that do not resolve ---

UNKNOWN_HOST_URL = "https://nobody.invalid"


@pytest.mark.parametrize(
    ("words", "settings", "message", "hint"),
    [
        (
            ["exports", "--api-url", UNKNOWN_HOST_URL],
            {"TILESYNC_TOKEN": "t"},
            "nobody.invalid does not",
            "check the name",
        ),
        (["mirror", f"{UNKNOWN_HOST_URL}/tiles?sp=rl&sig=x", "D"], {}, "nobody.invalid does not", "check the name"),
        (
            ["versions", "az://nobody/tiles", "--azure-endpoint", "https://{account}.invalid"],
            {"AZURE_STORAGE_KEY": "a2V5"}, "the name nobody.invalid does not", "check the name",
        ),
        (
            ["versions", "s3://tiles", "--endpoint-url", UNKNOWN_HOST_URL],
            {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}, "s3://tiles/ does not resolve", "--endpoint-url",
        ),
    ],
    ids=["service", "link", "azure", "s3"],
)  # fmt: skip
def test_an_unknown_host_is_reported_without_retries(
    words: list[str], settings: dict[str, str], message: str, hint: str, tmp_path: Path
) -> None:
    """An unknown host is reported by name within seconds, without a minute of retries."""
    began = time.monotonic()
    named = [str(tmp_path / word) if word == "D" else word for word in words]
    done = run_tilesync(*named, "--json", sim=None, **settings)
    assert time.monotonic() - began < 40
    assert (done.last_line["exit"], done.last_line["error"]) == (6, "Unavailable")
    assert message in done.last_line["message"]
    assert hint in done.last_line["hint"]


def test_a_resolver_that_fails_for_a_moment() -> None:
    """Temporary resolver errors, and a name that resolved before, are retried for the whole budget."""
    url = "https://nobody.invalid/?sig=x"
    assert permanent_error("Temporary failure in name resolution", url, host_answered=False) is None
    assert permanent_error("Name or service not known", url, host_answered=True) is None
    assert permanent_error("Connection refused", url, host_answered=False) is None
    result = permanent_error("[Errno -2] Name or service not known", url, host_answered=False)
    assert result is not None
    assert "sig" not in str(result)
