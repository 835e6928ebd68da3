"""The door alone, before an application that says yes to everything."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import Client, TestResponse
from werkzeug.wrappers import Response

from dashboards.security import CALLBACKS, Access, Door, content_policy, is_loopback, new_token
from hpo.errors import UsageError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

TOKEN = "a-token-of-enough-letters"


def inside(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    return Response("inside", headers={"Server": "secret/1.0"})(environ, start_response)


def door(access: Access | None = None) -> Client:
    access = access or Access(TOKEN, cookie="entrance")
    return Client(Door(inside, access, content_policy(["'sha256-x'"])))


def knock(path: str = "/", method: str = "GET", host: str = "127.0.0.1:8050", **headers: str) -> TestResponse:
    """Knock with a valid token unless `headers` bring their own."""
    given = {"Host": host, "Authorization": f"Bearer {TOKEN}"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    return door().open(path, method=method, headers=given)


def test_the_token_opens_the_door() -> None:
    assert knock().status_code == 200


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer ä"]
)
def test_anything_else_does_not(given: str) -> None:
    answer = knock(Authorization=given)
    assert answer.status_code == 401
    assert b"inside" not in answer.data


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126)).filter(lambda t: t != TOKEN))
def test_no_other_token_opens_the_door(guess: str) -> None:
    assert not Access(TOKEN, "entrance").knows_token(guess)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8050",
        "127.0.0.1.evil.example",
        "localhost.",
        "user@127.0.0.1",
        "127.0.0.1:port",
        "127.0.0.1/",
        "192.168.1.7:8050",
        "",
    ],
)
def test_a_foreign_host_is_refused_even_with_the_token(host: str) -> None:
    assert knock(host=host).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:65535", "[::1]:8050"])
def test_this_machine_may_be_called_by_any_of_its_names_at_any_port(host: str) -> None:
    assert knock(host=host).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_requests_of_other_sites_are_refused_even_with_the_token(site: str) -> None:
    assert knock(Sec_Fetch_Site=site).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8051", "http://[", ""])
def test_a_foreign_origin_is_refused_even_with_the_token(origin: str) -> None:
    assert knock(CALLBACKS, "POST", Origin=origin).status_code == 403


def test_the_own_origin_may_post_to_the_callbacks() -> None:
    own = {"Origin": "http://127.0.0.1:8050", "Sec_Fetch_Site": "same-origin"}
    assert knock(CALLBACKS, "POST", **own).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/"),
        ("POST", f"{CALLBACKS}/"),
        ("PUT", CALLBACKS),
        ("DELETE", "/"),
        ("OPTIONS", "/"),
        ("X", "/"),
    ],
)
def test_no_other_method_passes(method: str, path: str) -> None:
    assert knock(path, method).status_code == 405


def test_a_link_with_the_token_becomes_a_cookie_and_an_address_without_it() -> None:
    client = door()
    local = {"Host": "localhost:8050"}
    answer = client.get("/study/a%20b", query_string=f"x=1&token={TOKEN}&y=a%26b", headers=local)
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/study/a%20b?x=1&y=a%26b"
    cookie = answer.headers["Set-Cookie"]
    assert all(part in cookie for part in ("entrance=", "HttpOnly", "SameSite=Strict", "Path=/"))
    assert client.get("/study/a", headers=local).status_code == 200


def test_a_link_with_a_wrong_token_sets_nothing() -> None:
    answer = door().get("/?token=wrong", headers={"Host": "localhost"})
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("path", ["//evil.example/", "///evil.example", "/\\evil.example", "/%0d%0aX: y"])
def test_a_link_never_leads_to_another_host(path: str) -> None:
    environ = {"PATH_INFO": path.replace("%0d%0a", "\r\n"), "HTTP_HOST": "localhost"}
    answer = door().get("/", query_string=f"token={TOKEN}", environ_overrides=environ)
    location = answer.headers["Location"]
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))
    assert "\r" not in location
    assert "\n" not in location


@pytest.mark.parametrize("code", [200, 401, 403, 405])
def test_every_answer_is_dressed(code: int) -> None:
    answers = {
        200: knock(),
        401: knock(Authorization=""),
        403: knock(host="evil.example"),
        405: knock(method="PUT"),
    }
    headers = answers[code].headers
    assert answers[code].status_code == code
    assert "script-src 'self' 'sha256-x'" in headers["Content-Security-Policy"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "Server" not in headers


def test_beyond_loopback_addresses_and_own_names_are_known_but_foreign_names_are_not() -> None:
    access = Access.to("gpu-box.example", 8050)
    assert access.knows_host("gpu-box.example:8050")
    assert access.knows_host("10.0.0.7:8050")
    assert not access.knows_host("evil.example:8050")
    assert not Access.to("127.0.0.1", 8050).any_address


def test_two_dashboards_of_one_machine_have_two_cookies() -> None:
    assert Access.to("127.0.0.1", 1).cookie != Access.to("127.0.0.1", 2).cookie


def test_a_short_token_is_refused() -> None:
    with pytest.raises(UsageError, match="3 characters"):
        Access("abc", "entrance")


def test_tokens_are_long_and_never_the_same() -> None:
    assert len({new_token() for _ in range(100)}) == 100
    assert len(new_token()) >= 43


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_is_recognised(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.evil", ""])
def test_everything_else_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_the_token_is_not_in_the_words_of_a_log() -> None:
    assert TOKEN not in repr(Access(TOKEN, "entrance"))
