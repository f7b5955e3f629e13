"""A stand-in for the W&B server on the loopback, for tests: it accepts what the client sends and keeps every byte of it.

It answers as much GraphQL, file stream and storage as `wandb.init(mode="online")`, `log`, `log_artifact`, `finish` and `wandb sync` ask for
(wandb 0.31). It shows what the client sends, not that the real service would take it.
"""

import base64
import gzip
import json
import re
import threading
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "0123456789" * 4
ENTITY, PROJECT = "team", "isograft"
TIMESTAMP = "2026-01-01T00:00:00"


class Server(ThreadingHTTPServer):
    """`sent`: (what, body) of every request, bodies decompressed. `runs`, `history`, `artifacts`: what they amount to."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.lock = threading.Lock()
        self.sent: list[tuple[str, bytes]] = []
        self.runs: dict[str, dict] = {}
        self.history: dict[str, list[dict]] = {}
        self.summary: dict[str, dict] = {}
        self.finished: dict[str, int] = {}
        self.artifacts: dict[str, dict] = {}
        self.files: dict[str, bytes] = {}
        self.used: list[tuple[str | None, str]] = []
        self.views: list[dict] = []
        self.unknown: list[str] = []

    def env(self):
        """What points a client here."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_MODE": "online", "WANDB_ERROR_REPORTING": "false"}

    def config(self, run):
        """The run's configuration as one reads it on the site."""
        raw = json.loads(self.runs[run]["config"])
        return {name: entry["value"] for name, entry in raw.items() if name != "_wandb"}

    def leaks(self, word):
        """The requests in which `word` stands, in plain text, in base64, or in a compressed body."""
        forms = [word.encode(), *(base64.b64encode(pad + word.encode())[4:-4] for pad in (b"", b"x", b"xx") if len(word) > 8)]
        return [what for what, body in self.sent if any(f in text for f in forms for text in [*unpack_body(body), what.encode()])]

    def answer(self, op, v):
        """The data that the GraphQL operation `op` with variables `v` gets."""
        make = getattr(self, "on_" + op, None)
        if make:
            return make(v)
        if op not in ("ServerFeaturesQuery", "OrganizationCoreWeaveOrganizationID", "RunStoppedStatus"):
            self.unknown.append(op)
        return {}

    def on_Viewer(self, v):
        return {
            "viewer": {"id": "u", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": [{"node": {"name": ENTITY}}]}}
        }

    def on_RunResumeStatus(self, v):
        run = self.runs.get(v["name"])
        project = {"id": "p", "name": PROJECT, "entity": {"id": "e", "name": ENTITY}}
        return {"model": project | {"bucket": self.bucket(v["name"]) if run else None}}

    def on_UpsertBucket(self, v):
        name = v.get("name") or v["id"]
        new = name not in self.runs
        self.runs.setdefault(name, {}).update({k: x for k, x in v.items() if x is not None})
        return {"upsertBucket": {"bucket": self.bucket(name), "inserted": new}}

    def bucket(self, name):
        run, lines = self.runs[name], self.history.get(name, [])
        return {
            "id": base64.b64encode(f"Run:{name}".encode()).decode(),
            "name": name,
            "displayName": run.get("displayName") or name,
            "project": {"id": "p", "name": run.get("project") or PROJECT, "entity": {"id": "e", "name": ENTITY}},
            "config": run.get("config") or "{}",
            "summaryMetrics": json.dumps(self.summary.get(name, {})),
            "historyLineCount": len(lines),
            "historyTail": json.dumps([json.dumps(lines[-1])] if lines else []),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "eventsTail": "[]",
            "tags": [],
            "wandbConfig": "{}",
            "sweepName": None,
        }

    def on_CreateRunFiles(self, v):
        files = [{"name": f, "uploadUrl": f"{self.url}/storage/run/{v['run']}/{f}"} for f in v["files"]]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def on_ArtifactType(self, v):
        known = self.artifact(v["name"])
        return {"project": {"artifact": known and {"artifactType": known["artifactType"]}}}

    def on_ArtifactMembershipByName(self, v):
        known = self.artifact(v["name"])
        if known is None:
            return {"project": {"artifactCollectionMembership": None}}
        sequence = known["artifactSequence"]
        member = {"__typename": "ArtifactCollectionMembership", "id": "m", "versionIndex": 0, "createdAt": TIMESTAMP, "aliases": []}
        return {"project": {"artifactCollectionMembership": member | {"artifactCollection": sequence, "artifact": known}}}

    def on_ArtifactByID(self, v):
        return {"artifact": self.artifact(v["id"])}

    def on_UseArtifact(self, v):
        self.used.append((v.get("runName"), v["artifactID"]))
        known = self.artifact(v["artifactID"])
        return {"useArtifact": {"artifact": known}}

    def artifact(self, name):
        """The artifact of an id, or the newest of a name such as `team/isograft/mine:latest`; None when there is none."""
        plain = name.rpartition("/")[2].partition(":")[0]
        ids = [i for i, a in self.artifacts.items() if plain in (i, a["name"])]
        if not ids:
            return None
        made = self.artifacts[ids[-1]]
        entity = {"__typename": "Entity", "name": ENTITY}
        project = {"__typename": "Project", "id": "p", "internalId": "p", "name": PROJECT, "entity": entity}
        sequence = {"__typename": "ArtifactSequence", "id": "s" + ids[-1], "name": made["name"], "project": project}
        kind = {"__typename": "ArtifactType", "name": made["type"]}
        facts = {"id": ids[-1], "state": made["state"], "metadata": made["metadata"] or "{}", "digest": "d", "commitHash": "c", "size": 1}
        facts |= {
            "versionIndex": 0,
            "ttlDurationSeconds": -2,
            "ttlIsInherited": True,
            "fileCount": 1,
            "createdAt": TIMESTAMP,
            "updatedAt": None,
        }
        facts |= {"description": None, "historyStep": None, "tags": [], "aliases": []}
        return {"__typename": "Artifact", "artifactSequence": sequence, "artifactType": kind} | facts

    def on_FetchArtifactManifest(self, v):
        return {"artifact": {"currentManifest": {"file": {"directUrl": f"{self.url}/storage/manifest/{v['id']}"}}}}

    def on_GetArtifactMembershipFileUrls(self, v):
        made = next(i for i, a in reversed(self.artifacts.items()) if a["name"] == v["collection"])
        names = self.artifacts[made]["files"]
        edges = [{"node": {"__typename": "File", "name": n, "directUrl": f"{self.url}/storage/artifact/{made}/{n}"}} for n in names]
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        member = {"files": {"pageInfo": page, "edges": edges}}
        return {"project": {"artifactCollection": {"__typename": "ArtifactSequence", "artifactMembership": member}}}

    def on_GetProjects(self, v):
        node = {
            "__typename": "Project",
            "id": "p",
            "name": PROJECT,
            "entityName": ENTITY,
            "createdAt": TIMESTAMP,
            "isBenchmark": False,
            "user": None,
        }
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"models": {"pageInfo": page, "edges": [{"node": node}]}}

    def on_ProjectInternalId(self, v):
        return {"project": {"id": "p", "internalId": "cDox"}}

    def on_upsertView(self, v):
        self.views.append(v)
        project = {"id": "p", "name": PROJECT, "entityName": ENTITY}
        view = {"id": "VmlldzoxCg==", "name": v.get("name") or "v", "type": v.get("type"), "displayName": v.get("displayName")}
        view |= {
            "description": v.get("description"),
            "spec": v.get("spec"),
            "updatedAt": TIMESTAMP,
            "createdAt": TIMESTAMP,
            "project": project,
        }
        return {"upsertView": {"view": view | {"user": {"id": "u", "username": ENTITY}}, "inserted": True}}

    on_UpsertView2 = on_upsertView

    def on_CreateArtifact(self, v):
        given = v.get("input", v)
        name = f"artifact{len(self.artifacts)}"
        called = (given.get("artifactCollectionNames") or [given.get("artifactCollectionName")])[0]
        self.artifacts[name] = {
            "name": called,
            "state": "PENDING",
            "type": given.get("artifactTypeName"),
            "metadata": given.get("metadata"),
            "files": {},
        }
        made = {"id": name, "state": "PENDING", "artifactSequence": {"id": "s" + name, "latestArtifact": None}}
        return {"createArtifact": {"artifact": made}}

    def on_CreateArtifactManifest(self, v):
        url = f"{self.url}/storage/manifest/{v['artifactID']}"
        file = {"id": "f", "name": "wandb_manifest.json", "displayName": "wandb_manifest.json", "uploadUrl": url, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}

    def on_CreateArtifactFiles(self, v):
        edges = []
        for i, spec in enumerate(v.get("artifactFiles") or v["input"]["artifactFiles"]):
            name, of = spec["name"], spec["artifactID"]
            node = {"id": f"f{i}", "name": name, "displayName": name, "uploadUrl": f"{self.url}/storage/artifact/{of}/{name}"}
            more = {"uploadHeaders": [], "storagePath": f"x/{name}", "uploadMultipartUrls": None, "artifact": {"id": of}}
            edges.append({"node": node | more})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def on_CommitArtifact(self, v):
        self.artifacts[v["artifactID"]]["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": "d"}}}

    def stream(self, run, body):
        """A piece of the run's file stream: history lines, summary, the end."""
        told = json.loads(body or b"{}")
        for name, part in (told.get("files") or {}).items():
            lines = [json.loads(line) for line in part.get("content", []) if line.strip()]
            if name == "wandb-history.jsonl":
                self.history.setdefault(run, []).extend(lines)
            elif name == "wandb-summary.json" and lines:
                self.summary[run] = lines[-1]
        if told.get("complete"):
            self.finished[run] = told.get("exitcode")

    def store(self, path, body):
        """An uploaded file."""
        self.files[path] = body
        if found := re.match(r"/storage/artifact/(\w+)/(.+)", path):
            self.artifacts[found[1]]["files"][found[2]] = body

    def handle_error(self, request, client_address):
        """A client that ends resets its connections: nothing to report."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_):
        pass

    def received(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
        heads = "".join(f"\n{name}: {value}" for name, value in self.headers.items() if name.lower() != "host")
        with self.server.lock:
            self.server.sent.append((f"{self.command} {self.path}{heads}", body))
        return body

    def reply(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.received()
        with self.server.lock:
            if self.path.endswith("/graphql"):
                asked = json.loads(body)
                op = re.search(r"\b(?:query|mutation)\s+(\w+)", asked["query"])
                return self.reply({"data": self.server.answer(op[1] if op else "?", asked.get("variables") or {})})
            if found := re.match(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
                self.server.stream(found[1], body)
            return self.reply({})

    def do_PUT(self):
        body = self.received()
        with self.server.lock:
            self.server.store(self.path, body)
        self.reply({})

    def do_GET(self):
        self.received()
        stored = self.server.files.get(self.path)
        if stored is None:
            return self.reply({})
        self.send_response(200)
        self.send_header("content-length", str(len(stored)))
        self.end_headers()
        self.wfile.write(stored)


def unpack_body(body):
    """The body, and what it holds if it is compressed by itself."""
    found = [body]
    for open_ in (gzip.decompress, zlib.decompress):
        try:
            found.append(open_(body))
        except (OSError, zlib.error, EOFError):
            continue
    return found


@contextmanager
def run_server():
    """A running Server."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
