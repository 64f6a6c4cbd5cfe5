"""A stand-in of the Hugging Face hub, as far as huggingface_hub asks it: repositories of models in memory."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator

import pytest

USER, TOKEN = "anna", "hf_standin"
_MODEL = r"/api/models/(?P<repo>[^/]+/[^/]+)"


class Hub(http.server.ThreadingHTTPServer):
    """The server.

    Attributes:
      commits: Repository -> the files of each of its commits, by the commit.
      private: Those that were made private.
      gated: Those that nobody may read.
    """

    daemon_threads = True

    def __init__(self):
        """Begins without repositories."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()

    def head(self, repo: str) -> str:
        """Returns the newest commit of a repository."""
        return [*self.commits[repo]][-1]

    def add(self, repo: str, files: dict[str, bytes]) -> str:
        """Adds a commit, and returns its name."""
        commits = self.commits.setdefault(repo, {})
        name = hashlib.sha1(f"{repo} {len(commits)}".encode()).hexdigest()
        commits[name] = files
        return name


class _Refused(Exception):
    """A status and the hub's word for it."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format, *args):
        """Says nothing."""

    def do_GET(self):
        path = self.path.partition("?")[0]
        with self._refusals():
            if match := re.fullmatch(_MODEL + r"(/revision/(?P<rev>[^/]+))?", path):
                commit, _ = self._files(match["repo"], match["rev"] or "main")
                listed = {"private": match["repo"] in self.server.private}
                self._json(
                    {"id": match["repo"], "sha": commit, "siblings": [], "tags": [], **listed}
                )
            elif match := re.fullmatch(_MODEL + r"/tree/(?P<rev>[^/]+)", path):
                _, files = self._files(match["repo"], match["rev"])
                self._json(
                    [
                        {"type": "file", "path": n, "size": len(x), "oid": _oid(x)}
                        for n, x in files.items()
                    ]
                )
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                commit, files = self._files(match[1], match[2])
                if match[3] not in files:
                    raise _Refused(404, "EntryNotFound")
                data = files[match[3]]
                self._answer(200, data, {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": commit})
            else:
                raise _Refused(404, "")

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self._refusals():
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                raise _Refused(401, "")
            if self.path == "/api/validate-yaml":
                # A base model is a repository's name there.
                refused = [{"message": "base_model"}] if b"base_model: /" in body else []
                answer = {"errors": refused, "warnings": []}
                self._json(answer, status=400 if refused else 200)
            elif self.path == "/api/repos/create":
                self._create(json.loads(body))
            elif match := re.fullmatch(_MODEL + "/preupload/main", self.path):
                wanted = json.loads(body)["files"]
                mode = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
                self._json({"files": [{"path": f["path"], **mode} for f in wanted]})
            elif match := re.fullmatch(_MODEL + "/commit/main", self.path):
                files = dict(self._files(match["repo"], "main")[1])
                for line in map(json.loads, body.splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        files[value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "deletedFile":
                        del files[value["path"]]
                oid = self.server.add(match["repo"], files)
                url = f"http://{self.headers['Host']}/{match['repo']}/commit/{oid}"
                self._json({"success": True, "commitOid": oid, "commitUrl": url})
            else:
                raise _Refused(404, "")

    def _create(self, wanted):
        """Makes a repository of the user's."""
        repo = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] != USER:
            raise _Refused(403, "")
        url = f"http://{self.headers['Host']}/{repo}"
        if repo in self.server.commits:
            self._json({"url": url}, status=409)
            return
        if wanted.get("visibility") == "private":
            self.server.private.add(repo)
        self.server.add(repo, {".gitattributes": b"*.bin filter=lfs\n"})
        self._json({"url": url})

    def _files(self, repo, revision):
        """A commit, and its files."""
        if repo not in self.server.commits:
            raise _Refused(404, "RepoNotFound")
        if repo in self.server.gated:
            raise _Refused(403, "GatedRepo")
        commit = self.server.head(repo) if revision == "main" else revision
        if commit not in self.server.commits[repo]:
            raise _Refused(404, "RevisionNotFound")
        return commit, self.server.commits[repo][commit]

    @contextlib.contextmanager
    def _refusals(self):
        try:
            yield
        except _Refused as refused:
            status, code = refused.args
            self._answer(status, b"", {"X-Error-Code": code} if code else {})

    def _json(self, value, status=200):
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status, data, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _oid(data: bytes) -> str:
    """What git calls a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextlib.contextmanager
def serving(cache: object) -> Iterator[Hub]:
    """Has huggingface_hub speak to a stand-in inside the block, signed in as its user, with an empty cache."""
    from huggingface_hub import constants

    with Hub() as server, pytest.MonkeyPatch.context() as patch:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "ENDPOINT", endpoint)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setenv("HF_TOKEN", TOKEN)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
