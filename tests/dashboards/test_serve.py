import socket
import urllib.error
import urllib.request

import pytest

from dashboards.serve import make_server, serve
from hpo.errors import UsageError
from tests.dashboards.serving import served


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
def test_other_machines_are_not_served_unless_allowed(host: str) -> None:
    with pytest.raises(UsageError, match="can be reached from other machines") as refused:
        make_server(None, host, 0)
    assert "--allow-remote" in refused.value.hint
    assert "ssh -L" in refused.value.hint


def test_they_are_when_allowed() -> None:
    server, address = make_server(None, "0.0.0.0", 0, allow_remote=True)
    server.close()
    assert address.startswith(f"http://{socket.gethostname()}:")


def test_a_taken_port_is_an_error_that_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot serve at 127.0.0.1:{port}"):
            make_server(None, "127.0.0.1", port)


def test_a_short_token_is_refused_and_the_port_freed() -> None:
    with pytest.raises(UsageError, match="the token has 5 characters"):
        make_server(None, "127.0.0.1", 0, "short")


def test_the_address_announced_opens_the_dashboard_once_the_token_is_a_cookie(store_url: str) -> None:
    with served(store_url) as address:
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(address) as answer:
            assert answer.status == 200
            assert "token" not in answer.url
        bare = address.partition("?")[0]
        with opener.open(bare) as answer:
            assert "Server" not in answer.headers
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(bare)
        refused.value.close()


def test_serving_announces_the_address_with_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def __init__(self, *_: object, sockets: list[socket.socket], **__: object) -> None:
            self.listener = sockets[0]

        def run(self) -> None:
            raise KeyboardInterrupt

        def close(self) -> None:
            self.listener.close()
            said.append("closed")

    said: list[str] = []
    monkeypatch.setattr("waitress.create_server", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        serve(None, port=0, token="x" * 16, announce=said.append)
    assert said[0].endswith(f"/?token={'x' * 16}")
    assert said[-1] == "closed"
