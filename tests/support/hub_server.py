"""The few answers of the Hugging Face hub that an upload asks for, given by a server on this machine."""

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_writes"
READ_TOKEN = "hf_reads"
USER = {"type": "user", "name": "ann", "orgs": [{"type": "org", "name": "lab"}]}


class Hub:
    """Models by name, each with its files, and the requests that came.

    Attributes:
      models: what has been committed.
      requests: method and path, in order.
      failing: part of a path that is refused.
    """

    def __init__(self, address: str):
        self.address = address
        self.models: dict[str, dict[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.failing: str | None = None

    def environment(self, home: str, token: str | None = TOKEN) -> dict[str, str]:
        """Of a process whose hub this is."""
        names = ("HF_", "HUGGING_FACE_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(names)}
        new = {"HF_ENDPOINT": self.address, "HF_HOME": home, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        return kept | new | ({} if token is None else {"HF_TOKEN": token})

    def answer(self, method: str, path: str, token: str | None, body: bytes) -> tuple[int, Any]:
        """The status and the JSON of an answer."""
        self.requests.append(f"{method} {path}")
        if self.failing is not None and self.failing in path:
            return 403, {"error": "not for you"}  # the client tries again where the server is to blame
        if path.startswith("/blob/") and method == "PUT":
            self.blobs[path.removeprefix("/blob/")] = body
            return 200, {}
        if token not in (TOKEN, READ_TOKEN):
            return 401, {"error": "Invalid credentials"}
        return self.of_user(path, token, body)

    def of_user(self, path: str, token: str, body: bytes) -> tuple[int, Any]:
        parts = path.strip("/").split("/")
        match parts:
            case ["api", "whoami-v2"]:
                role = "write" if token == TOKEN else "read"
                return 200, USER | {"auth": {"accessToken": {"role": role, "displayName": "test"}}}
            case ["api", "repos", "create"]:
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                status = 409 if name in self.models else 200
                self.models.setdefault(name, {})
                return status, {"url": f"{self.address}/{name}", "error": "You already created this model repo"}
            case ["api", "validate-yaml"]:
                return 200, {"errors": [], "warnings": []}
            case ["api", "models", owner, name, "preupload", "main"] if f"{owner}/{name}" in self.models:
                mode = {True: "lfs", False: "regular"}
                files = [
                    (file["path"], mode[file["path"].endswith(".safetensors")]) for file in json.loads(body)["files"]
                ]
                return 200, {
                    "files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in files]
                }
            case [owner, git, "info", "lfs", "objects", "batch"] if f"{owner}/{git[:-4]}" in self.models:
                objects = json.loads(body)["objects"]
                return 200, {
                    "transfer": "basic",
                    "objects": [
                        one | {"actions": {"upload": {"href": f"{self.address}/blob/{one['oid']}", "header": {}}}}
                        for one in objects
                    ],
                }
            case ["api", "models", owner, name, "commit", "main"] if f"{owner}/{name}" in self.models:
                self.commit(f"{owner}/{name}", [json.loads(line) for line in body.splitlines()])
                return 200, {"commitUrl": f"{self.address}/{owner}/{name}/commit/1", "commitOid": "1" * 40}
        return 404, {"error": f"nothing at {path}"}

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.models[name][value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                blob = self.blobs[value["oid"]]
                assert hashlib.sha256(blob).hexdigest() == value["oid"]
                self.models[name][value["path"]] = blob


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A hub without models, for as long as the block takes."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
            status, value = hub.answer(self.command, self.path.partition("?")[0], token, body)
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = respond  # noqa: N815

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
