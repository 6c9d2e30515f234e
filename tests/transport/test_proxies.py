"""Proxy selection by the environment."""

from __future__ import annotations

import pytest

from tests.support.both_clients import HELLO, fetch_by_both_clients
from tests.support.http_server import RecordingServer, answer, serving, tunnel
from tilesync.errors import UsageError
from tilesync.transport.proxies import read_proxies

PROXY = "http://proxy.example:3128"


def proxy_url_for(url: str, **environ: str) -> str | None:
    """Return the proxy for a URL."""
    proxy = read_proxies(environ).proxy_for(url)
    return proxy.url if proxy is not None else None


@pytest.mark.parametrize(
    ("environ", "http", "https"),
    [
        ({}, None, None),
        ({"http_proxy": PROXY}, PROXY, None),
        ({"HTTPS_PROXY": PROXY}, None, PROXY),
        ({"ALL_PROXY": PROXY}, PROXY, PROXY),
        ({"all_proxy": PROXY, "https_proxy": "https://other.example"}, PROXY, "https://other.example"),
        ({"HTTPS_PROXY": PROXY, "https_proxy": "other.example:1"}, None, "http://other.example:1"),
        ({"HTTPS_PROXY": PROXY, "https_proxy": ""}, None, None),
        ({"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, None, None),
        ({"http_proxy": PROXY, "REQUEST_METHOD": "GET"}, PROXY, None),
        ({"ALL_PROXY": "socks5://h:1080/"}, "socks5h://h:1080", "socks5h://h:1080"),
        ({"ALL_PROXY": " http://me:p%40ss@h:1 "}, "http://me:p%40ss@h:1", "http://me:p%40ss@h:1"),
    ],
)
def test_precedence_of_variables(environ: dict[str, str], http: str | None, https: str | None) -> None:
    """By scheme, else ALL_PROXY; lower case wins, an empty value disables."""
    assert (
        proxy_url_for("http://host.example/a?sig=1", **environ),
        proxy_url_for("https://host.example", **environ),
    ) == (http, https)


@pytest.mark.parametrize(
    ("entry", "direct", "proxied"),
    [
        ("*", ["http://a.example", "https://10.1.2.3", "http://[::1]:8"], []),
        ("other.net, *", ["http://a.example", "http://10.1.2.3"], []),
        ("a.example", ["http://a.example:81", "http://b.A.example.", "https://a.example"], ["http://ba.example"]),
        (".a.example", ["http://a.example", "http://b.a.example"], ["http://ba.example"]),
        ("*.a.example.", ["http://a.example", "http://b.a.example"], ["http://ba.example"]),
        ("x.net a.example\tb.example", ["http://a.example", "http://b.example"], ["http://c.example"]),
        ("a.example:8080", ["http://a.example:8080", "http://b.a.example:8080"], ["http://a.example"]),
        ("a.example:443", ["https://a.example"], ["http://a.example", "https://a.example:8443"]),
        ("10.1.2.3", ["http://10.1.2.3", "https://10.1.2.3:9000"], ["http://10.1.2.30", "http://x.10.1.2.3.example"]),
        ("10.1.2.3:9000", ["http://10.1.2.3:9000"], ["http://10.1.2.3", "http://10.1.2.3:9001"]),
        ("10.0.0.0/8", ["http://10.1.2.3:9000"], ["http://11.1.2.3", "http://ten.example"]),
        ("10.1.2.3/8", ["http://10.9.9.9"], ["http://11.1.2.3"]),
        ("::1", ["http://[::1]", "http://[0:0:0:0:0:0:0:1]:9"], ["http://[::2]", "http://127.0.0.1"]),
        ("[::1]", ["http://[::1]:9"], ["http://[::2]"]),
        ("[::1]:9000", ["http://[::1]:9000"], ["http://[::1]"]),
        ("fd00::/8", ["http://[fd12::1]:9000"], ["http://[fe80::1]"]),
        ("127.0.0.1", ["http://[::ffff:127.0.0.1]"], ["http://localhost"]),
        (".3", ["http://a.3"], ["http://10.1.2.3"]),
        ("localhost", ["http://localhost:1"], ["http://127.0.0.1", "http://mylocalhost"]),
        ("", [], ["http://localhost", "http://127.0.0.1", "http://a.example"]),
    ],
)
@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
def test_no_proxy_entries(variable: str, entry: str, direct: list[str], proxied: list[str]) -> None:
    """Every form of an entry exempts its hosts, and no others."""
    environ = {"ALL_PROXY": PROXY, variable: entry}
    assert [url for url in direct if proxy_url_for(url, **environ) is not None] == []
    assert [url for url in proxied if proxy_url_for(url, **environ) is None] == []


def test_invalid_no_proxy_entries() -> None:
    """They exempt nothing, and are kept for a warning."""
    proxies = read_proxies({"ALL_PROXY": PROXY, "NO_PROXY": "http://a.example, b.example:port, [nonsense], c.example"})
    assert proxies.invalid_entries == ("http://a.example", "b.example:port", "[nonsense]")
    assert proxies.proxy_for("http://a.example") is not None
    assert proxies.proxy_for("http://c.example") is None


@pytest.mark.parametrize("value", ["socks4://me:SECRET@h:1", "ftp://h", "http://", "http://me:SECRET@h:port", "a b"])
def test_invalid_proxy(value: str) -> None:
    """It is refused only where it would be used, by the name of its variable and without its value."""
    proxies = read_proxies({"HTTPS_PROXY": value, "NO_PROXY": "direct.example"})
    assert proxies.proxy_for("https://direct.example") is None
    assert proxies.proxy_for("http://a.example") is None
    with pytest.raises(UsageError, match="HTTPS_PROXY") as raised:
        proxies.proxy_for("https://a.example")
    with pytest.raises(UsageError):
        proxies.check_usable()
    assert "SECRET" not in f"{raised.value} {raised.value.hint} {proxies!r}"


def test_system_proxies() -> None:
    """They apply if no variable is set, with their own exemptions; `no_proxy` applies too."""
    system = {"https": "http://system.example:1"}
    proxies = read_proxies({"no_proxy": "b.example"}, system, lambda host: host == "intranet")
    assert bool(proxies)
    assert [proxies.proxy_for(f"https://{host}") is None for host in ("a.example", "b.example", "intranet")] == [
        False,
        True,
        True,
    ]
    by_variable = read_proxies({"https_proxy": PROXY}, system, lambda host: host == "intranet")
    proxy = by_variable.proxy_for("https://intranet")
    assert proxy is not None
    assert proxy.url == PROXY


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
def test_https_proxy(secure: RecordingServer, bundle: str, variable: str) -> None:
    """Both clients use the proxy of HTTPS_PROXY, which sees only the host."""
    with serving(tunnel) as proxy:
        environment = {"SSL_CERT_FILE": bundle, variable: proxy.url("")}
        assert fetch_by_both_clients(secure.url("/?sig=SECRET", "localhost"), **environment) == HELLO
        assert proxy.paths == [f"localhost:{secure.server_address[1]}"] * 2


@pytest.mark.parametrize("hosts", ["localhost", "other.net,localhost", "*"])
def test_no_proxy(secure: RecordingServer, bundle: str, hosts: str) -> None:
    """Both clients bypass the proxy for the hosts of NO_PROXY."""
    with serving(tunnel) as proxy:
        url = secure.url("/?sig=SECRET", "localhost")
        assert fetch_by_both_clients(url, SSL_CERT_FILE=bundle, HTTPS_PROXY=proxy.url(""), NO_PROXY=hosts) == HELLO
        assert proxy.paths == []


def test_no_proxy_for_others(secure: RecordingServer, bundle: str) -> None:
    """A host that is not in NO_PROXY is reached through the proxy."""
    with serving(tunnel) as proxy:
        url = secure.url("/?sig=SECRET", "localhost")
        assert (
            fetch_by_both_clients(url, SSL_CERT_FILE=bundle, HTTPS_PROXY=proxy.url(""), NO_PROXY="other.net") == HELLO
        )
        assert len(proxy.paths) == 2


def test_proxy_that_wants_a_login(secure: RecordingServer, bundle: str) -> None:
    """A proxy that wants a login ends both clients at once, without the URL in the message; nothing bypasses it."""
    with serving(answer(status=407)) as proxy:
        url = secure.url("/?sig=SECRET", "localhost")
        result = fetch_by_both_clients(url, SSL_CERT_FILE=bundle, HTTPS_PROXY=proxy.url(""))
        retries = ["Unavailable", "a proxy wants a user name and a password (407)"]
        assert result == {"api": retries, "blob": retries}
        assert len(proxy.paths) == 2
        assert secure.paths == []


def test_proxy_password_is_not_reported(secure: RecordingServer, bundle: str) -> None:
    """An unreachable proxy is reported without the password in its URL."""
    with serving(answer()) as gone:
        proxy = gone.url("").replace("://", "://user:SECRET@")
    result = fetch_by_both_clients(secure.url("/", "localhost"), SSL_CERT_FILE=bundle, HTTPS_PROXY=proxy)
    assert (result["api"][0], result["blob"][0]) == ("Unavailable", "Transient")
