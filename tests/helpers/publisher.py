"""A server on this machine that publishes weights as the hub does, and what is left of a fetch from it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from helpers.command import CHECKOUT

COMMIT, NEWER = "1234567890abcdef1234567890abcdef12345678", "f" * 40


class Handler(BaseHTTPRequestHandler):
    """Enough of the hub's interface for huggingface_hub, and plain files under /files/. What it was asked for stands in
    `server.asked`."""

    protocol_version = "HTTP/1.1"
    server: Publisher

    def log_message(self, *words: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        if path.startswith("/api/models/gone/"):
            return self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
        if path.startswith("/api/models/gated/"):
            return self.send(403, b"", {"X-Error-Code": "GatedRepo"})
        if path.startswith("/api/models/ill/"):
            return self.send(500, b"")
        if path.startswith("/api/models/"):
            revision = path.partition("/revision/")[2] or "main"
            if revision not in ("main", COMMIT, self.server.commit):
                return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return self.send(200, json.dumps(self.server.about(revision)).encode())
        name = path.rpartition("/files/")[2] if "/files/" in path else path.split("/", 5)[-1]
        data = self.server.files.get(name)
        if data is None:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": path.split("/")[4:5][0]}
        length = self.server.lengths.get(name, str(len(data)))
        cut = name in self.server.cut or name in self.server.lengths
        self.send(200, data if body else b"", headers, length, cut=name in self.server.cut)
        self.close_connection = self.close_connection or cut

    def send(
        self,
        code: int,
        data: bytes,
        headers: dict[str, str] | None = None,
        length: str | None = None,
        cut: bool = False,
    ) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)) if length is None else length)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = self.close_connection or cut


class Publisher(ThreadingHTTPServer):
    """Repositories of any name that hold `files`; those in `cut` break off half way, those in `lies` are other bytes
    than their listing says."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.lies = files, set[str](), set[str]()
        self.lengths = dict[str, str]()  # what answers say in place of their length
        self.commit, self.asked = COMMIT, list[str]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def about(self, revision: str) -> dict[str, Any]:
        return {
            "id": "org/tiny",
            "sha": self.commit if revision == "main" else revision,
            "cardData": {"license": "mit"},
            "siblings": [self.listed(name, data) for name, data in self.files.items()],
        }

    def listed(self, name: str, data: bytes) -> dict[str, Any]:
        promised = hashlib.sha256(b"another" if name in self.lies else data).hexdigest()
        lfs = {"lfs": {"sha256": promised, "size": len(data), "pointerSize": 130}}
        return {"rfilename": name, "size": len(data)} | (lfs if name.endswith((".safetensors", ".bin", ".pt")) else {})


@contextmanager
def publishing() -> Iterator[Publisher]:
    """A server that publishes a tiny model."""
    server = Publisher(
        {
            "README.md": b"# tiny",
            "model.safetensors": bytes(range(256)) * 400,
            "config.json": b'{"model_type": "clip"}',
            "merges.txt": b"a b",
            "modeling_tiny.py": b"raise SystemExit('code of a repository was run')",
            "pytorch_model.bin": b"pickled" * 100,
            "weights.pt": b"one file" * 1000,
        }
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


CHILD = """
import json, sys
from retake.errors import RetakeError
from retake.weights.fetch import fetch
said, seen = [], []
try:
    path = str(fetch(sys.argv[1], lambda done, total: seen.append([done, total]), said.append))
    print(json.dumps({"path": path, "said": said, "seen": seen}))
except RetakeError as error:
    print(json.dumps(error.as_json()))
"""


def fetched(reference: str, endpoint: str, **environment: str) -> dict:
    """What a process of its own says when it fetches: huggingface_hub reads its environment once, on import."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD, reference],
        cwd=CHECKOUT,
        env=os.environ | {"HF_ENDPOINT": endpoint} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


def left(folder: Path) -> list[str]:
    """Files under a folder that are more than bookkeeping."""
    kept = [p for p in folder.rglob("*") if p.is_file() and ".locks" not in p.parts and p.name != "CACHEDIR.TAG"]
    return sorted(str(p.relative_to(folder)) for p in kept)
