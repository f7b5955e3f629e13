"""A stand-in for the Hugging Face hub on the loopback, for tests: downloads, gated and missing repositories, and uploads.

It answers what huggingface_hub 2 asks for. It shows what the client sends and accepts, not that the real hub would take it.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "c0de"
LARGE = (".safetensors", ".bin", ".npz")  # files that the hub keeps in LFS, by their sha256


class HubServer(ThreadingHTTPServer):
    """`repos`: OWNER/NAME -> {file: bytes}. `gated`: names that answer 403. `asked`: (method, path, token) of every request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.repos: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.objects: dict[str, bytes] = {}  # uploaded large files by sha256
        self.created: dict[str, dict] = {}
        self.asked: list[tuple[str, str, str | None]] = []

    def files(self, repo):
        return [{"type": "file", "path": name, "rfilename": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                for name, body in self.repos[repo].items()]  # fmt: skip


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **headers):
        body = json.dumps(body).encode() if not isinstance(body, bytes) else body
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **{k.replace("_", "-"): v for k, v in headers.items()}}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def handle_request(self):
        path = unquote(urlsplit(self.path).path)
        body = self.read_body()
        self.server.asked.append((self.command, path, self.headers.get("Authorization")))
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = asked.get("organization", "me") + "/" + asked["name"] if "/" not in asked["name"] else asked["name"]
            self.server.created[name] = asked
            self.server.repos.setdefault(name, {})
            return self.answer(200, {"url": f"{self.server.url}/{name}", "id": name})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path == "/api/whoami-v2":
            return self.answer(200, {"name": "me", "type": "user", "auth": {"accessToken": {"role": "write"}}})
        if m := re.fullmatch(r"/upload/(\w+)", path):
            self.server.objects[m[1]] = body
            return self.answer(200)
        m = re.match(r"/(?:api/models/)?([\w.-]+/[\w.-]+?)(?:\.git)?(/.*)?$", path)
        repo, rest = (m[1], m[2] or "") if m else ("", "")
        if repo in self.server.gated:
            return self.answer(403, {"error": "gated"}, X_Error_Code="GatedRepo", X_Error_Message="Access restricted")
        if repo not in self.server.repos:
            return self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        return self.answer_repo(repo, rest, path, body)

    def answer_repo(self, repo, rest, path, body):
        files = self.server.repos[repo]
        if path.startswith("/api/") and (found := re.match(r"/(revision|tree)/([^/]+)", rest)) and found[2] not in ("main", "v1", COMMIT):
            return self.answer(404, {"error": "Revision not found"}, X_Error_Code="RevisionNotFound")
        if path.startswith("/api/") and (rest == "" or rest.startswith("/revision/")):
            return self.answer(
                200, {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": self.server.files(repo), "tags": [], "private": False}
            )
        if path.startswith("/api/") and rest.startswith("/tree/"):
            return self.answer(200, self.server.files(repo))
        if path.startswith("/api/") and rest.startswith("/paths-info/"):
            asked = json.loads(body)["paths"] if body[:1] == b"{" else re.findall(r"paths=([^&]+)", body.decode())
            facts = {name: {"oid": hashlib.sha256(files[name]).hexdigest(), "size": len(files[name]), "pointerSize": 1} for name in asked}
            return self.answer(200, [{**f, "lfs": facts[f["path"]]} for f in self.server.files(repo) if f["path"] in asked])
        if rest.startswith("/preupload/"):
            asked = json.loads(body)["files"]
            return self.answer(200, {"files": [{"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular",
                                                "shouldIgnore": False, "oid": None} for f in asked]})  # fmt: skip
        if rest == "/info/lfs/objects/batch":
            objects = [{"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{self.server.url}/upload/{o['oid']}"}}}
                       for o in json.loads(body)["objects"]]  # fmt: skip
            return self.answer(200, {"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json")
        if rest.startswith("/commit/"):
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.server.objects[value["oid"]]
                elif line["key"] == "deletedFile":
                    files.pop(value["path"], None)
            done = {"commitUrl": f"{self.server.url}/{repo}/commit/{COMMIT}", "commitOid": COMMIT, "success": True}
            return self.answer(200, done)
        if m := re.match(r"/resolve/([^/]+)/(.+)", rest):
            if m[2] not in files:
                return self.answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            return self.send_file(files[m[2]], m[2])
        return self.answer(404, {"error": f"unknown path {path}"})

    def send_file(self, body, name):
        etag = (hashlib.sha256 if name.endswith(LARGE) else hashlib.sha1)(body).hexdigest()
        linked = {"X_Linked_Etag": f'"{etag}"', "X_Linked_Size": str(len(body))} if name.endswith(LARGE) else {}
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range") or "") or [0, 0])[1])
        self.answer(206 if start else 200, body[start:], ETag=f'"{etag}"', X_Repo_Commit=COMMIT, **linked)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request


@contextmanager
def running_hub():
    """A server in a thread of its own."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
