"""A Hub on loopback that takes what is published, as `huggingface_hub` 2.4 sends it without Xet.

Read from `hf_api.py`, `_commit_api.py` and `lfs.py`: `/api/models/{repo}?blobs=True` tells the head and the files,
`/api/repos/create` makes a repository.  A commit is a check of the card's YAML, the question which files are large
(`preupload`), for these the question what of them is missing (`info/lfs/objects/batch`) and a PUT each at the other
port, and then lines of JSON (`commit`).
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import yaml

from tests.hub_server import COMMIT, Hub, fail, send

MODEL = re.compile(r"/api/models/(?P<repo>[^/?]+/[^/?]+)(\?.*)?")


@dataclass
class WritableHub(Hub):
    """Only `token` may write, and only to `namespace`.

    `heads` has the last commit of each repository and `private` whether it is; `commits` are what was pushed, as
    repository, summary and paths; `stored` are the large files by their sha256, `sent` these in the order they came.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=lambda: {COMMIT: {}})
    token: str = "hf_write"
    namespace: str = "me"
    heads: dict[str, str] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    commits: list[tuple[str, str, list[str]]] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)

    def take(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        at_hub = request.server is self._servers[0]
        self.requests.append(f"{request.command} {request.path if at_hub else 'storage'}")
        if not at_hub:
            self._store(request, body)
        elif self.status:
            fail(request, self.status)
        elif request.headers.get("Authorization") != f"Bearer {self.token}":
            fail(request, 401, headers={"X-Error-Message": "Invalid credentials in Authorization header"})
        else:
            routes = {
                r"/api/validate-yaml": self._check_card,
                r"/api/repos/create": self._create,
                r"/api/models/(?P<repo>.+)/preupload/main": self._modes,
                r"/(?P<repo>.+)\.git/info/lfs/objects/batch": self._missing,
                r"/api/models/(?P<repo>.+)/commit/main": self._commit,
            }
            for path, route in routes.items():
                if asked := re.fullmatch(path, request.path):
                    lines = [json.loads(line) for line in body.splitlines()]
                    return route(request, lines, **asked.groupdict())
            fail(request, 404)
        return None

    def content(self, repo: str) -> dict[str, bytes]:
        """The files of a repository at its head."""
        known = self.files[self.heads[repo]].items()
        return {name.removeprefix(f"{repo}/"): content for name, content in known if name.startswith(f"{repo}/")}

    def _resolve(self, request: BaseHTTPRequestHandler) -> None:
        asked = MODEL.fullmatch(request.path)
        if asked is None:
            super()._resolve(request)
        elif asked["repo"] not in self.heads:
            fail(request, 404, "RepoNotFound")
        else:
            files = [self._described(path, content) for path, content in self.content(asked["repo"]).items()]
            self._say(request, {"id": asked["repo"], "sha": self.heads[asked["repo"]], "siblings": files})

    def _described(self, path: str, content: bytes) -> dict:
        digest = hashlib.sha256(content).hexdigest()
        if digest in self.stored:
            large = {"sha256": digest, "size": len(content), "pointerSize": 130}
            return {"rfilename": path, "size": len(content), "blobId": "0" * 40, "lfs": large}
        blob = hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()
        return {"rfilename": path, "size": len(content), "blobId": blob}

    def _store(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        digest = request.path.removeprefix("/")
        self.stored[digest] = body
        self.sent.append(digest)
        send(request, b"", self)

    def _check_card(self, request: BaseHTTPRequestHandler, lines: list[dict]) -> None:
        head = yaml.safe_load(lines[0]["content"].split("---")[1])
        self._say(request, {"warnings": [] if head["license"] == head["license"].lower() else [{"message": "licence"}]})

    def _create(self, request: BaseHTTPRequestHandler, lines: list[dict]) -> None:
        (wanted,) = lines
        repo = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] != self.namespace:
            return fail(request, 403)
        self.private[repo] = wanted.get("visibility") == "private"
        self.heads[repo] = self.main
        return self._say(request, {"url": f"{self.endpoint}/{repo}"})

    def _modes(self, request: BaseHTTPRequestHandler, lines: list[dict], repo: str) -> None:
        if repo not in self.heads:
            return fail(request, 404, "RepoNotFound")
        modes = {
            file["path"]: "lfs" if file["path"].endswith(".safetensors") else "regular" for file in lines[0]["files"]
        }
        files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
        return self._say(request, {"files": files})

    def _missing(self, request: BaseHTTPRequestHandler, lines: list[dict], repo: str) -> None:
        objects = [{"oid": wanted["oid"], "size": wanted["size"]} for wanted in lines[0]["objects"]]
        for wanted in objects:
            if wanted["oid"] not in self.stored:
                wanted["actions"] = {"upload": {"href": f"{self.storage}/{wanted['oid']}"}}
        self._say(request, {"transfer": "basic", "objects": objects})

    def _commit(self, request: BaseHTTPRequestHandler, lines: list[dict], repo: str) -> None:
        head, *changes = (line["value"] for line in lines)
        if head.get("parentCommit", self.heads[repo]) != self.heads[repo]:
            return fail(request, 412)
        files = {
            change["path"]: base64.b64decode(change["content"]) if "content" in change else self.stored[change["oid"]]
            for change in changes
        }
        commit = hashlib.sha1(b"".join([self.main.encode(), repo.encode(), *files.values()])).hexdigest()
        self.files[commit] = self.files[self.main] | {f"{repo}/{path}": content for path, content in files.items()}
        self.main = self.heads[repo] = commit
        self.commits.append((repo, head["summary"], sorted(files)))
        return self._say(request, {"commitOid": commit, "commitUrl": f"{self.endpoint}/{repo}/commit/{commit}"})

    def _say(self, request: BaseHTTPRequestHandler, content: dict) -> None:
        send(request, json.dumps(content).encode(), self)
