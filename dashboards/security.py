"""Who may see the dashboard: one door before every route, closed unless all of its checks pass.

A browser talks to 127.0.0.1 on behalf of any page it shows, so a local address protects nothing by
itself. In this order the door checks

1. the Host header, so that a foreign name made to resolve to this machine (DNS rebinding) fails;
2. Sec-Fetch-Site and Origin, so that other sites can neither read nor post;
3. method and path: GET and HEAD anywhere, POST only where Dash runs its callbacks;
4. the token, in constant time. ``?token=`` in a link becomes a cookie at once, and the browser is
   sent on to the same address without it, so that it stays out of histories and referrers.

Not covered: plain HTTP can be read on its way, so beyond this machine the token is only as safe as the
network (hence the loopback default; an SSH tunnel reaches it from afar).
"""

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from werkzeug.datastructures import Headers
from werkzeug.wrappers import Request, Response

from hpo.errors import UsageError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
CALLBACKS = "/_dash-update-component"
"""The one path that takes POST. Its callbacks read, unless actions are allowed (`dashboards.actions`)."""

_TOKEN_BYTES = 32
_SHORTEST_TOKEN = 16


def new_token() -> str:
    """Return a token that cannot be guessed: 256 random bits."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` can be reached from this machine only."""
    if host == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


@dataclass(frozen=True)
class Access:
    """What opens the door.

    Raises:
        UsageError: the token is shorter than 16 characters.
    """

    token: str = field(repr=False)
    cookie: str
    """Its name. Cookies know no port, so two dashboards of one host need two names."""
    hosts: frozenset[str] = LOOPBACK_NAMES
    """Names by which the server may be called, without the port (tunnels change it)."""
    any_address: bool = False
    """Also accept every IP address as a Host: unlike a name, an address cannot be rebound."""

    def __post_init__(self) -> None:
        if len(self.token) < _SHORTEST_TOKEN:
            raise UsageError(
                f"the token has {len(self.token)} characters",
                f"give at least {_SHORTEST_TOKEN}, or none to have one made",
            )

    @classmethod
    def to(cls, host: str, port: int, token: str | None = None) -> "Access":
        """Return what opens a server bound to `host`; a new token is made unless one is given."""
        token = new_token() if token is None else token
        cookie = f"hpo_dashboard_{port}"
        if is_loopback(host):
            return cls(token, cookie, LOOPBACK_NAMES | {host.lower()})
        names = {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        return cls(token, cookie, LOOPBACK_NAMES | names, any_address=True)

    def knows_host(self, header: str) -> bool:
        name = _host_name(header)
        return name in self.hosts or (self.any_address and _address(name) is not None)

    def knows_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(errors="replace"), self.token.encode())


def content_policy(script_hashes: Iterable[str]) -> str:
    """Return a Content-Security-Policy: own files only, and the inline scripts with these hashes.

    Inline styles are allowed because Plotly and AG Grid set them; images because Plotly makes a
    picture of a figure in the page itself when asked to download one.
    """
    scripts = " ".join(["'self'", *script_hashes])
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {scripts}",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


class Door:
    """WSGI middleware that lets nobody pass to `app` without `access`, and dresses every answer."""

    def __init__(self, app: "WSGIApplication", access: Access, policy: str) -> None:
        self._app = app
        self._access = access
        self._headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        request = Request(environ)
        answer = self._refusal(request) or self._entrance(request)
        app = self._app if answer is None else answer

        def dressed(status: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
            return start_response(status, self._dressed(headers), error)

        return app(environ, dressed)

    def _dressed(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        all_headers = Headers(headers)
        all_headers.update(self._headers)
        all_headers.setdefault("Cache-Control", "no-store")
        all_headers.remove("Server")
        return all_headers.to_wsgi_list()

    def _refusal(self, request: Request) -> Response | None:
        """Return why a request is turned away before its token is looked at; None if it is not."""
        host = request.environ.get("HTTP_HOST", "")
        if not self._access.knows_host(host):
            return _said(
                HTTPStatus.FORBIDDEN, "This server is not known by that name. Open the address it printed."
            )
        if not _comes_from(host, request):
            return _said(
                HTTPStatus.FORBIDDEN,
                "Another site sent this request. Paste the printed address into the address bar instead.",
            )
        if request.method in ("GET", "HEAD") or (request.method == "POST" and request.path == CALLBACKS):
            return None
        return _said(HTTPStatus.METHOD_NOT_ALLOWED, "Only reading is possible here.")

    def _entrance(self, request: Request) -> Response | None:
        """Return the answer to a request without, or with a new, token; None if it may pass."""
        if "token" in request.args and request.method != "POST":
            if self._access.knows_token(request.args["token"]):
                return self._welcome(request)
        elif self._access.knows_token(_carried(request, self._access.cookie)):
            return None
        return _said(
            HTTPStatus.UNAUTHORIZED,
            "A token is needed. Open the address printed by `hpo dashboard`, which ends in ?token=...",
        )

    def _welcome(self, request: Request) -> Response:
        others = [(key, value) for key, value in request.args.items(multi=True) if key != "token"]
        # One leading slash: two would be read as the name of another host.
        path = "/" + quote(request.path.lstrip("/"), safe="/")
        answer = _said(HTTPStatus.SEE_OTHER, "")
        answer.headers["Location"] = path + (f"?{urlencode(others)}" if others else "")
        answer.autocorrect_location_header = False
        answer.set_cookie(self._access.cookie, self._access.token, httponly=True, samesite="Strict", path="/")
        return answer


def _said(status: HTTPStatus, message: str) -> Response:
    return Response(f"{message}\n", status=status, content_type="text/plain; charset=utf-8")


def _comes_from(host: str, request: Request) -> bool:
    """Whether a request was made by a page of this server, by the address bar, or by no browser at all."""
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return False
    origin = request.headers.get("Origin")
    return origin is None or origin.lower() in (f"http://{host}".lower(), f"https://{host}".lower())


def _carried(request: Request, cookie: str) -> str:
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    return bearer if scheme.lower() == "bearer" else request.cookies.get(cookie, "")


def _host_name(header: str) -> str:
    """Return the name in a Host header without its port; empty if it is not one."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port
    except ValueError:
        return ""
    return (parts.hostname or "") if parts.netloc == header and "@" not in header else ""


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
