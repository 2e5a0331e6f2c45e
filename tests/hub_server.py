"""A Hub on loopback: the endpoints that `huggingface_hub` uses to look up and download a file of a model repository.

What it answers was read from huggingface_hub 2.4 (`file_download.py`): a HEAD on `/{repo}/resolve/{revision}/{file}`
must carry `X-Repo-Commit`, `ETag` (or `X-Linked-Etag`) and the size; small files are served there, large ones are
redirected to another origin, here a second port.  No answer has Xet headers, so the client takes the plain HTTP path.
Once a day the client also asks `/api/agent-harnesses` for what to put into its user agent.
"""

import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server serves, how it misbehaves, and what it was asked.

    `files[commit]` maps "owner/name/file" to content and `main` is the commit of the branch.  With `large` files have
    their sha256 as tag (`promised` overrides it) and come from the other port.  `cut` is how many downloads break off
    halfway; `status` answers every request with an error; `headers = False` leaves out what makes it a Hub.
    """

    files: dict[str, dict[str, bytes]]
    main: str = COMMIT
    large: bool = False
    promised: str | None = None
    cut: int = 0
    status: int | None = None
    headers: bool = True
    requests: list[str] = field(default_factory=list)
    authorized: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)

    def __enter__(self) -> "Hub":
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), self._handler()) for _ in range(2)]
        self.endpoint, self.storage = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.answer(self)

            def do_GET(self) -> None:
                hub.answer(self)

            def do_POST(self) -> None:
                hub.take(self)

            def do_PUT(self) -> None:
                hub.take(self)

            def log_message(self, *_) -> None:
                pass

        return Handler

    def take(self, request: BaseHTTPRequestHandler) -> None:
        """This one is only read from; `tests/hub_writable.py` has one that takes what is sent."""
        fail(request, 405)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if request.path == "/api/agent-harnesses":
            return send(request, b'{"standardEnvVars": [], "harnesses": {}}', self)
        at_hub = request.server is self._servers[0]
        self.requests.append(f"{request.command} {request.path if at_hub else 'storage'}")
        if "Authorization" in request.headers:
            self.authorized.append(f"{'hub' if at_hub else 'storage'} {request.headers['Authorization']}")
        if not at_hub:
            return send(request, self._stored(request.path), self)
        return fail(request, self.status) if self.status else self._resolve(request)

    def _resolve(self, request: BaseHTTPRequestHandler) -> None:
        asked = RESOLVE.fullmatch(request.path)
        commit = self.main if asked and asked["revision"] == "main" else asked and asked["revision"]
        if asked is None or not any(name.startswith(asked["repo"] + "/") for name in self.files[self.main]):
            return fail(request, 404, "RepoNotFound")
        if commit not in self.files:
            return fail(request, 404, "RevisionNotFound")
        name = f"{asked['repo']}/{asked['file']}"
        if name not in self.files[commit]:
            return fail(request, 404, "EntryNotFound")
        content = self.files[commit][name]
        if not self.headers:
            return send(request, content, self)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        if not self.large:
            return send(request, content, self, headers)
        headers |= {
            "X-Linked-Etag": f'"{self.promised or hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(len(content)),
            "Location": f"{self.storage}/{commit}/{name}",
        }
        return fail(request, 302, headers=headers)

    def _stored(self, path: str) -> bytes:
        commit, name = path.removeprefix("/").split("/", 1)
        return self.files[commit][name]


def send(request: BaseHTTPRequestHandler, content: bytes, hub: Hub, headers: dict[str, str] | None = None) -> None:
    start = 0
    if wanted := re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", "")):
        hub.ranges.append(wanted[0])
        start = int(wanted[1])
    request.send_response(206 if wanted else 200)
    if wanted:
        request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    body = content[start:]
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command == "HEAD":
        return
    if hub.cut > 0 and "/api/" not in request.path:
        hub.cut -= 1
        body = body[: len(body) // 2]
    request.wfile.write(body)


def fail(request: BaseHTTPRequestHandler, status: int, code: str = "", headers: dict[str, str] | None = None) -> None:
    request.send_response(status)
    for name, value in ((headers or {}) | ({"X-Error-Code": code} if code else {})).items():
        request.send_header(name, value)
    request.send_header("Content-Length", "0")
    request.end_headers()
