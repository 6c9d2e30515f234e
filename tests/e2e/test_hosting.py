"""Test `tilesync doctor DEST` on real servers: the checks, and that the printed lines solve each problem."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import shutil
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from azure.storage.blob import BlobServiceClient, CorsRule

from tests.support.azurite import ACCOUNT, KEY, Azurite
from tests.support.builders import IMODEL, export, glb, tileset
from tests.support.commandline import CommandResult, run_tilesync
from tests.support.s3 import ENVIRONMENT, SECRET, BucketServer, S3Proxy
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator
from tests.support.web_servers import caddy, nginx, require_program
from tilesync.checks.web_servers import CADDY_INSIDE_SITE, NGINX_INSIDE_SERVER, NGINX_OUTSIDE_SERVER

ORIGIN = "https://viewer.example"
Change = Callable[[str], str]


def mirror_files(dest: Path, files: dict[str, bytes], **more: Any) -> None:
    with Simulator() as sim:
        sim.offer_export(files, **more)
        assert sim.mirror(dest).error is None


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    mirror_files(tmp_path / "d", export(4) | {"ä b+%20/t.png": b"\x89PNG\r\n\x1a\n"})
    return tmp_path / "d"


def run_doctor(dest: object, url: str | None = None, origin: str | None = ORIGIN, **more: Any) -> CommandResult:
    public = () if url is None else ("--public-url", url)
    named = () if origin is None else ("--origin", origin)
    return run_tilesync("doctor", dest, *public, *named, "--json", "--retry-for", "0s", **more)


# --- a folder behind nginx ---


def remove_patterns(*patterns: str) -> Change:
    """Remove matching lines from a configuration."""

    def change(text: str) -> str:
        for pattern in patterns:
            text, count = re.subn(pattern, "", text, flags=re.MULTILINE | re.DOTALL)
            assert count
        return text

    return change


def apply_hint(hint: str, change: Change) -> Change:
    """Insert the lines of a hint into a changed configuration."""
    beside, inside, target = list[str](), list[str](), list[str]()
    for line in hint.splitlines():
        if line in {NGINX_OUTSIDE_SERVER, NGINX_INSIDE_SERVER, CADDY_INSIDE_SITE}:
            target = beside if line == NGINX_OUTSIDE_SERVER else inside
        else:
            target.append(line)
    assert beside or inside

    def mended(text: str) -> str:
        text = change(text)
        opening = "server {\n" if "server {\n" in text else ":8080 {\n"
        return "\n".join(beside) + "\n" + text.replace(opening, opening + "\n".join(inside) + "\n")

    return mended


def test_the_documented_configuration_passes_every_check(dest: Path, tmp_path: Path) -> None:
    """With the documented configuration every check is ok; a file of each kind, and a name to be quoted, are tested."""
    require_program("nginx")
    with nginx(dest, tmp_path / "state") as server:
        done = run_doctor(dest, server.url)
        asked = {path for path, _ in server.requests()}
    assert (done.exit_code, done.failed_checks) == (0, {})
    assert "state" in done.checks
    lead = f"/versions/{EXPORT}"
    assert f"{lead}/ä b+%20/t.png" in asked
    assert {path.rpartition(".")[2] for path in asked if path.startswith(lead)} == {"json", "glb", "png", "bin"}


CASES: dict[str, tuple[Change, str, str]] = {
    "origin": (remove_patterns(r"^ *add_header Access-Control-Allow-Origin.*?\n"), "origin", "fail"),
    "preflight": (
        remove_patterns(r"^ *add_header Access-Control-Allow-Headers.*?\n", r"^ *if \(\$request_method.*?}\n"),
        "preflight",
        "warn",
    ),
    "types": (remove_patterns(r"^ *types \{.*?}\n", r"^ *default_type.*?\n"), "types", "fail"),
    "state": (remove_patterns(r"^ *location ~\* /.*?}\n"), "state", "fail"),
    "caching": (
        remove_patterns(r"^map \$uri \$tiles_cache.*?}\n", r"^ *add_header Cache-Control.*?\n"),
        "caching",
        "warn",
    ),
}

CADDY_CASES: dict[str, tuple[Change, str, str]] = {
    "origin": (remove_patterns(r"^\theader Access-Control-Allow-Origin.*?\n"), "origin", "fail"),
    "preflight": (
        remove_patterns(
            r"^\theader Access-Control-Allow-Headers.*?\n", r"^\t@preflight.*?\n", r"^\trespond @preflight.*?\n"
        ),
        "preflight",
        "warn",
    ),
    "types": (remove_patterns(r"^\t@glb.*?\n", r"^\theader @glb.*?\n"), "types", "fail"),
    "state": (remove_patterns(r"^\t@state.*?\n", r"^\terror @state.*?\n"), "state", "fail"),
    "caching": (
        remove_patterns(
            r"^\t@versions \{.*?\n\t}\n", r"^\t@others not.*?\n\t}\n", r"^\theader @(versions|others).*?\n"
        ),
        "caching",
        "warn",
    ),
}

RELATED_CHECKS = {"origin": {"preflight"}, "caching": {"pointer-caching"}}
"""Checks that the same configuration lines concern."""


@pytest.mark.parametrize("case", CASES)
def test_printed_lines_repair_the_configuration(dest: Path, tmp_path: Path, case: str) -> None:
    """Without a part of the configuration its check fails, and the printed lines repair it."""
    require_program("nginx")
    change, name, result = CASES[case]
    with nginx(dest, tmp_path / "ill", change) as server:
        ill = run_doctor(dest, server.url)
    assert ill.checks[name]["result"] == result
    assert set(ill.failed_checks) == {name} | RELATED_CHECKS.get(case, set())
    assert ill.exit_code == (8 if result == "fail" else 0)
    with nginx(dest, tmp_path / "well", apply_hint(ill.checks[name]["hint"], change)) as server:
        well = run_doctor(dest, server.url)
    assert (well.exit_code, well.failed_checks) == (0, {})


@pytest.mark.parametrize("case", CADDY_CASES)
def test_caddy_gets_lines_for_caddy(dest: Path, tmp_path: Path, case: str) -> None:
    """For Caddy the printed lines are Caddy's, and repair it."""
    require_program("caddy")
    change, name, result = CADDY_CASES[case]
    wrong = (lambda text: text.replace("Type model/gltf-binary", "Type text/plain")) if case == "types" else change
    with caddy(dest, tmp_path / "ill", wrong) as server:
        ill = run_doctor(dest, server.url)
    assert ill.checks[name]["result"] == result
    assert "nginx" not in ill.checks[name]["hint"]
    with caddy(dest, tmp_path / "well", apply_hint(ill.checks[name]["hint"], change)) as server:
        well = run_doctor(dest, server.url)
    assert (well.exit_code, well.failed_checks) == (0, {})


def test_an_unknown_server_gets_a_description_and_an_example(dest: Path, tmp_path: Path) -> None:
    """For an unknown server the hint says what is required, with the lines of a known server as an example."""
    handler = partial(SimpleHTTPRequestHandler, directory=dest)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        done = run_doctor(dest, f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
    assert done.failed_checks["state"] == "fail"
    for name, rule in (("state", "the answer must be 404"), ("origin", "must have the header `Access-Control-")):
        hint = done.checks[name]["hint"]
        assert hint.startswith("the server calls itself SimpleHTTP/")
        assert rule in hint
        assert "the lines for nginx:" in hint


def test_an_export_that_is_stored_as_gzip(tmp_path: Path) -> None:
    """A gzip payload without Content-Encoding fails, since no viewer reads it; the printed lines repair it."""
    require_program("nginx")
    files = {"tileset.json": tileset("a.glb", "b.b3dm"), "a.glb": gzip.compress(glb(b"packed"), mtime=0)}
    files["b.b3dm"] = gzip.compress(glb(b"packed too"), mtime=0)
    mirror_files(tmp_path / "d", files)
    change = remove_patterns(
        r"^map \$uri \$tiles_encoding.*?^}\n", r"^ *add_header Content-Encoding.*?\n", r"^ *gzip on.*?\n"
    )
    with nginx(tmp_path / "d", tmp_path / "ill", change) as server:
        ill = run_doctor(tmp_path / "d", server.url)
    assert (ill.exit_code, ill.failed_checks) == (8, {"encoding": "fail", "names": "skipped"})
    assert "no viewer can read it" in ill.checks["encoding"]["message"]
    assert "--content decoded" in ill.checks["encoding"]["hint"]
    with nginx(tmp_path / "d", tmp_path / "well", apply_hint(ill.checks["encoding"]["hint"], change)) as server:
        assert run_doctor(tmp_path / "d", server.url).failed_checks == {"names": "skipped"}


def test_an_origin_without_access_is_reported(dest: Path, tmp_path: Path) -> None:
    """A server that allows one origin refuses others; without --origin an example origin is used, and named as such."""
    require_program("nginx")

    def named(text: str) -> str:
        return text.replace('Allow-Origin "*"', f'Allow-Origin "{ORIGIN}"')

    with nginx(dest, tmp_path / "state", named) as server:
        assert run_doctor(dest, server.url).failed_checks == {}
        other = run_doctor(dest, server.url, "https://other.example")
        example = run_doctor(dest, server.url, None)
    assert (other.exit_code, other.failed_checks) == (8, {"origin": "fail", "preflight": "warn"})
    assert f"Access-Control-Allow-Origin is {ORIGIN}" in other.checks["origin"]["message"]
    assert '"https://other.example"' in other.checks["origin"]["hint"]
    assert "an example: give yours with --origin" in example.checks["origin"]["message"]
    assert '"*"' in example.checks["origin"]["hint"]


def test_an_old_pointer_is_detected(dest: Path, tmp_path: Path) -> None:
    """A server that still sends the pointer of an older version is detected."""
    require_program("nginx")
    old = shutil.copytree(dest, tmp_path / "old", symlinks=True)
    mirror_files(dest, export(4, seed=1), export_id=OTHER_EXPORT, lastModified="2026-03-02T08:30:00Z")
    with nginx(old, tmp_path / "state") as server:
        done = run_doctor(dest, server.url)
    assert (done.exit_code, done.failed_checks) == (
        8,
        {"current": "fail", "files": "fail", "names": "fail"} | SKIPPED_CHECKS,
    )
    assert f"to version {OTHER_EXPORT}: it leads to version {EXPORT}" in done.checks["current"]["message"]


SKIPPED_CHECKS = dict.fromkeys(("types", "encoding", "range", "caching"), "skipped")


def test_a_file_with_other_bytes(dest: Path, tmp_path: Path) -> None:
    """Served bytes are compared with the manifest: exit 10, as for `verify`."""
    require_program("nginx")
    changed = shutil.copytree(dest, tmp_path / "changed", symlinks=True)
    tile = min((changed / "versions" / EXPORT / "tiles").glob("*.glb"), key=lambda path: path.stat().st_size)
    tile.write_bytes(tile.read_bytes()[:-1] + b"!")
    with nginx(changed, tmp_path / "state") as server:
        done = run_doctor(dest, server.url)
    assert (done.exit_code, done.last_line["error"], done.checks["files"]["result"]) == (10, "VerifyFailed", "fail")
    assert tile.name in done.checks["files"]["message"]


def test_a_url_without_a_pointer_ends_with_8(dest: Path, tmp_path: Path) -> None:
    """No pointer at the URL: exit 8, and checks that need it are skipped."""
    require_program("nginx")
    with nginx(dest, tmp_path / "state") as server:
        done = run_doctor(dest, f"{server.url}/elsewhere")
    assert (done.exit_code, done.checks["public"]["result"], done.checks["files"]["result"]) == (8, "fail", "skipped")
    assert "--public-url" in done.checks["public"]["hint"]


def test_the_flat_layout(tmp_path: Path) -> None:
    """In the flat layout the pointer is the root itself, and no file is cached for ever."""
    require_program("nginx")
    with Simulator() as sim:
        sim.offer_export()
        run = run_tilesync("mirror", IMODEL, tmp_path / "d", "--layout", "flat", sim=sim)
        assert run.exit_code == 0
    with nginx(tmp_path / "d", tmp_path / "state") as server:
        done = run_doctor(tmp_path / "d", server.url)
    assert (done.exit_code, done.failed_checks) == (0, {"caching": "skipped"})


# --- from inside ---


def test_without_a_public_url_only_the_destination_is_checked(dest: Path) -> None:
    """Without --public-url the stored files of a folder are checked, and the missing option is named."""
    done = run_doctor(dest)
    assert (done.exit_code, list(done.checks), done.failed_checks) == (
        0,
        ["held", "pointer", "outside"],
        {"outside": "skipped"},
    )
    assert "--public-url" in done.checks["outside"]["hint"]
    assert "no web server was checked" in done.checks["outside"]["message"]
    people = run_tilesync("doctor", dest)
    assert "no problem found" not in people.stdout + people.stderr
    assert "no web server was asked" in people.stderr
    assert people.stderr.count("--public-url") == 1


@pytest.mark.parametrize("lost", ["latest.json", f"manifests/{EXPORT}.jsonl", "tileset.json"])
def test_a_missing_document_in_the_destination_ends_with_8(dest: Path, lost: str) -> None:
    """A missing latest.json, manifest or pointer: exit 8 with the remedy."""
    (dest / lost).unlink()
    done = run_doctor(dest)
    assert (done.exit_code, done.last_line["error"]) == (8, "DestinationError")
    assert done.checks["pointer" if lost == "tileset.json" else "held"]["result"] == "fail"
    assert "tilesync mirror" in next(line["hint"] for line in done.checks.values() if line["result"] == "fail")


def test_a_pointer_to_another_version(dest: Path) -> None:
    """A pointer that does not match latest.json is detected."""
    (dest / "tileset.json").write_bytes(b"{}")
    assert run_doctor(dest).failed_checks == {"pointer": "fail", "outside": "skipped"}


# --- a container ---


@pytest.fixture
def account(azurite: Azurite) -> Iterator[BlobServiceClient]:
    credential = {"account_name": ACCOUNT, "account_key": KEY}
    with BlobServiceClient(f"{azurite.url}/{ACCOUNT}", credential=credential) as result:
        yield result
        result.set_service_properties(cors=[])


def parse_cors_rule(command: str) -> CorsRule:
    """Parse the rule of a printed `az storage cors add`."""
    words, options = shlex.split(command), dict[str, list[str]]()
    assert words[:4] == ["az", "storage", "cors", "add"]
    for word in words[4:]:
        if word.startswith("--"):
            options[word] = []
        else:
            options[next(reversed(options))].append(word)
    assert options["--services"] == ["b"]
    assert options["--account-name"] == [ACCOUNT]
    return CorsRule(
        options["--origins"],
        options["--methods"],
        allowed_headers=options["--allowed-headers"],
        exposed_headers=options["--exposed-headers"],
        max_age_in_seconds=int(options["--max-age"][0]),
    )


def test_a_private_container_is_fixed_step_by_step(
    azurite: Azurite, account: BlobServiceClient, tmp_path: Path
) -> None:
    """A private container: both solutions are printed. A public one without CORS: a command whose rule solves it."""
    account.set_service_properties(cors=[])  # other tests share this service
    name = f"h{uuid.uuid4()}"
    container = account.create_container(name)
    dest = f"az://{ACCOUNT}/{name}/a b"
    environment: dict[str, Any] = {
        "AZURE_STORAGE_KEY": KEY,
        "TILESYNC_AZURE_ENDPOINT": f"{azurite.url}/{ACCOUNT}",
        "XDG_STATE_HOME": str(tmp_path),
    }
    with Simulator() as sim:
        sim.offer_export(export(4) | {"ä b+%20/t.png": b"\x89PNG\r\n\x1a\n"})
        assert run_tilesync("mirror", IMODEL, dest, sim=sim, **environment).exit_code == 0

    private = run_doctor(dest, **environment)
    assert (private.exit_code, private.last_line["error"], private.checks["public"]["result"]) == (
        8,
        "DestinationError",
        "fail",
    )
    hint = private.checks["public"]["hint"]
    public = ["--account-name", ACCOUNT, "--name", name, "--public-access", "blob"]
    assert shlex.join(["az", "storage", "container", "set-permission", *public]) in hint
    assert shlex.join(["tilesync", "link", dest]) in hint
    assert private.checks["preflight"]["result"] == "warn"

    container.set_container_access_policy({}, public_access="blob")
    shut = run_doctor(dest, **environment)
    assert (shut.exit_code, shut.failed_checks) == (8, {"origin": "fail", "preflight": "warn"})
    account.set_service_properties(cors=[parse_cors_rule(shut.checks["origin"]["hint"].splitlines()[-1])])
    well = run_doctor(dest, **environment)
    assert (well.exit_code, well.failed_checks) == (0, {})
    assert "state" not in well.checks
    signed = azurite.make_sas_link(name, life=timedelta(hours=1)).replace("?", "/a%20b?")
    by_link = run_doctor(signed, XDG_STATE_HOME=str(tmp_path))
    assert (by_link.exit_code, by_link.failed_checks) == (0, {})
    assert "other users of this machine can see the link" in by_link.stderr
    assert run_doctor(dest, origin="https://other.example", **environment).checks["origin"]["result"] == "fail"

    account.set_service_properties(cors=[])
    container.set_container_access_policy({}, public_access=None)
    every = "".join(done.stdout + done.stderr for done in (private, shut, well, by_link))
    assert KEY not in every
    assert "sig=" not in every


def test_an_unreadable_destination_does_not_skip_the_url_check() -> None:
    """If DEST cannot be read, the public URL is still checked: both errors are printed; the first gives the exit."""
    done = run_doctor("az://acct/box", "http://127.0.0.1:9", AZURE_STORAGE_KEY="no key TOPSECRET")
    assert (done.exit_code, done.failed_checks["held"], done.failed_checks["public"]) == (2, "fail", "fail")
    assert "AZURE_STORAGE_KEY" in done.checks["held"]["hint"]
    assert "TOPSECRET" not in done.stdout + done.stderr


# --- a bucket ---


def parse_printed_json(hint: str, verb: str, option: str) -> Any:
    """Parse the JSON of a printed `aws s3api` command."""
    words = next(shlex.split(line) for line in hint.splitlines() if f" {verb} " in line)
    return json.loads(words[words.index(option) + 1])


def test_a_private_bucket_is_fixed_step_by_step(bucket_server: BucketServer, bucket: str, tmp_path: Path) -> None:
    """For a private bucket a policy and CORS rules are printed; the server accepts both, and viewers get access.

    This server lets every page read what is public, whatever the rules are; and it answers a preflight by the policy,
    which the real one does not.
    """
    dest = f"s3://{bucket}/a b"
    environment: dict[str, Any] = {
        **ENVIRONMENT,
        "TILESYNC_ENDPOINT_URL": bucket_server.url,
        "XDG_STATE_HOME": str(tmp_path),
    }
    with Simulator() as sim:
        sim.offer_export(export(4) | {"ä b+%20/t.png": b"\x89PNG\r\n\x1a\n"})
        assert run_tilesync("mirror", IMODEL, dest, sim=sim, **environment).exit_code == 0
    private = run_doctor(dest, **environment)
    assert (private.exit_code, private.checks["public"]["result"]) == (8, "fail")
    policy = parse_printed_json(private.checks["public"]["hint"], "put-bucket-policy", "--policy")
    bucket_server.client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    rules = parse_printed_json(private.checks["preflight"]["hint"], "put-bucket-cors", "--cors-configuration")
    bucket_server.client.put_bucket_cors(Bucket=bucket, CORSConfiguration=rules)
    well = run_doctor(dest, **environment)
    assert (well.exit_code, well.failed_checks) == (0, {"preflight": "warn"})
    assert SECRET not in "".join(done.stdout + done.stderr for done in (private, well))


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "profile"])
def test_the_check_of_a_bucket_uses_the_settings_of_a_run(
    bucket_server: BucketServer, bucket: str, tmp_path: Path, variable: str
) -> None:
    """The S3 endpoint and the CA file also come from AWS variables and profiles."""
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with S3Proxy(bucket_server, tls=tls) as proxy:
        config = tmp_path / "config"
        config.write_text(f"[profile mine]\nendpoint_url = {proxy.url}\nca_bundle = {tmp_path / 'ca.pem'}\n")
        named = {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "mine"}
        if variable != "profile":
            named = {variable: proxy.url, "AWS_CA_BUNDLE": str(tmp_path / "ca.pem")}
        done = run_doctor(f"s3://{bucket}/p", **{**ENVIRONMENT, **named, "XDG_STATE_HOME": str(tmp_path)})
        hosts = {request.headers["host"] for request in proxy.requests}
    assert (done.failed_checks["held"], done.failed_checks["public"]) == ("fail", "fail")
    assert "nothing is published" in done.checks["held"]["message"]
    assert f"{proxy.url}/{bucket}/p/tileset.json is not public" in done.checks["public"]["message"]
    assert f"--endpoint-url {proxy.url}" in done.checks["public"]["hint"]
    assert hosts == {urlsplit(proxy.url).netloc}
