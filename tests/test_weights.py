"""Weights: references, what is found on disk, and downloads for real from a server on this machine."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import CHECKOUT

from flows.terminal.console import Console
from flows.upkeep import doctor
from flows.upkeep import weights as weight_files
from retake.errors import ConfigError, MachineError, RetakeError
from retake.machine.disk import explain_write_errors
from retake.networks.checkpoint import display_name, load_local, load_pretrained
from retake.store import Store
from retake.weights import fetch, local
from retake.weights.catalogue import CATALOGUE, Hub, Shipped, Url, Weights

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


@pytest.fixture
def publisher() -> Iterator[Publisher]:
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


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's caches is seen, and nothing leaves it."""
    for name in (
        "HF_HUB_CACHE",
        "HF_ENDPOINT",
        "HF_HUB_OFFLINE",
        "XDG_CACHE_HOME",
        "HF_TOKEN",
        "HTTP_PROXY",
        "http_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


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


# ---- references ----------------------------------------------------------------------------------------------------


NONE = ("raft_larg", "no such thing", "a/b/c", "../x", "./x", "/nowhere", "", " ", "~nobody/x", "a" * 300)
NO_REPOSITORY = ("a" * 300 + "/b", "org/" + "b" * 300, "org/repo@" + "c" * 300, "org/repo@", "org/repö")
NO_REVISION = ("org/repo@../../x", "org/repo@/etc/passwd", "org/repo@a/../../b", "org/repo@a//b", "org/repo@./a")


@pytest.mark.parametrize("reference", [*NONE, *NO_REPOSITORY, *NO_REVISION])
def test_a_reference_that_is_none_is_refused(reference: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        local.locate(reference)
    assert refusal.value.code == "E250"
    with pytest.raises(ConfigError):
        fetch.fetch(reference)


def test_a_near_miss_is_named() -> None:
    with pytest.raises(ConfigError, match="Did you mean raft_large"):
        local.catalogue_entry("raft_larg")


FETCHED = [name for name, entry in CATALOGUE.items() if not isinstance(entry.source, Shipped)]


@pytest.mark.parametrize("reference", [*FETCHED, "org/tiny", "org/tiny@1a2b3c4", "org/tiny@refs/pr/1"])
def test_missing_weights_say_what_to_type(reference: str) -> None:
    assert local.locate(reference) is None
    with pytest.raises(MachineError) as refusal:
        local.require(reference)
    assert refusal.value.code == "E302"
    assert refusal.value.hint.endswith(f"retake weights {reference}")
    assert local.identity_or_absent(reference, None) == "absent"  # type: ignore[arg-type]  not asked


def test_what_ships_is_a_folder_of_the_package_known_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Shipped(f"shipped-{os.getpid()}")
    assert source.path.parent == Path(local.__file__).parent
    monkeypatch.setitem(CATALOGUE, "tiny", Weights("tiny", source, 1, "MIT", "a test"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").write_text("a file that happens to be called so")
    assert local.locate("tiny") is None
    for ask in (local.require, fetch.fetch):
        with pytest.raises(MachineError) as refusal:
            ask("tiny")
        assert refusal.value.code == "E302"
        assert "git checkout" in refusal.value.hint
    monkeypatch.setattr(Shipped, "path", property(lambda self: tmp_path / self.file))
    (tmp_path / source.file).mkdir()
    (tmp_path / source.file / "model.safetensors").write_bytes(b"weights")
    assert fetch.fetch("tiny") == local.require("tiny") == tmp_path / source.file
    assert display_name("tiny", local.require("tiny")) == source.file
    store = Store(tmp_path / "store")
    before = local.identity("tiny", store.source_digest)
    assert before == local.identity(str(tmp_path / source.file), store.source_digest)
    (tmp_path / source.file / "model.safetensors").write_bytes(b"retrained")
    assert local.identity("tiny", store.source_digest) != before


def test_a_judge_that_is_not_here_is_missed_by_name_and_found_once_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip_folder: Path, capsys: Any
) -> None:
    """The folder comes with Retake, and a checkout may lack it: everything that lists weights goes on."""
    from retake.metrics import cass, clip_score, temporal_consistency

    asked = [
        (clip_score, clip_score.Params(prompt="a b", weights="judge", device="cpu")),
        (cass, cass.Params(source_prompt="a b", weights="judge", device="cpu")),
        (temporal_consistency, temporal_consistency.Params(weights="judge", device="cpu")),
    ]
    monkeypatch.setattr(Shipped, "path", property(lambda self: tmp_path / self.file))
    entry = next(entry for entry in weight_files.inventory() if entry["name"] == "judge")
    assert (entry["present"], entry["bytes"]) == (False, None)
    assert entry["command"] == "git checkout -- retake/weights"
    assert any(
        "git checkout" in line and "weights=judge" in line for line in weight_files.table(weight_files.inventory())
    )
    for ask in (local.require, fetch.fetch, lambda name: weight_files.get([name], Console(quiet=True))):
        with pytest.raises(MachineError, match="E302"):
            ask("judge")
    for module, params in asked:
        assert local.identity_or_absent("judge", Store(tmp_path / "store").source_digest) == "absent"
        with pytest.raises(MachineError, match="E302"):
            module.networks(params)
    shutil.copytree(clip_folder, tmp_path / "judge")
    assert weight_files.get(["judge"], Console(quiet=True))[0]["present"]
    for module, params in asked:
        metric = module.Metric(params, **module.networks(params))
        assert set(metric.networks().values()) == {"CLIP judge"}


def test_a_local_file_is_known_by_its_content(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first, second = tmp_path / "a.pth", tmp_path / "b.pth"
    for path in (first, second):
        path.write_bytes(b"weights")
    assert local.require(str(first)) == first
    assert fetch.fetch(str(first)) == first
    assert local.identity(str(first), store.source_digest) == local.identity(str(second), store.source_digest)
    second.write_bytes(b"others!")
    assert local.identity(str(first), store.source_digest) != local.identity(str(second), store.source_digest)


def test_half_a_repository_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    repo = tmp_path / "hf/hub/models--org--tiny"
    folder = repo / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(COMMIT)
    (folder / "config.json").write_text("{}")
    assert local.locate("org/tiny") is None
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-1-of-2.safetensors").write_bytes(b"x")
    assert local.locate("org/tiny") is None
    (folder / "model-2-of-2.safetensors").symlink_to("nowhere")
    assert local.locate("org/tiny") is None
    (folder / "model-2-of-2.safetensors").unlink()
    (folder / "model-2-of-2.safetensors").write_bytes(b"y")
    assert local.locate("org/tiny") == local.locate(f"org/tiny@{COMMIT}") == folder
    assert local.identity("org/tiny", Store(tmp_path / "store").source_digest) == f"org/tiny@{COMMIT}"
    (folder / "model.safetensors.index.json").write_text("{")
    assert local.locate("org/tiny") is None


def test_a_pipeline_is_whole_when_each_component_is(tmp_path: Path) -> None:
    repo = tmp_path / "hf/hub/models--org--tiny"
    folder = repo / "snapshots" / COMMIT
    (folder / "unet").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(COMMIT)
    index = {"_class_name": "X", "unet": ["diffusers", "U"], "vae": ["diffusers", "V"], "image_encoder": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index | {"safety_checker": ["other", "S"], "scale": 1.0}))
    (folder / "all-in-one.safetensors").write_bytes(b"another form of it")
    assert local.locate("org/tiny") is None
    (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"x")
    assert local.locate("org/tiny") is None
    (folder / "vae").mkdir()
    (folder / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"x")
    assert local.locate("org/tiny") == folder
    (folder / "model_index.json").write_text("[]")
    assert local.locate("org/tiny") is None


PIPELINE = {
    "model_index.json": json.dumps({"unet": ["diffusers", "U"], "vae": ["diffusers", "V"]}).encode(),
    "README.md": b"# tiny",
    "v1-5-pruned.safetensors": b"in one file" * 99,
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": b"unet" * 99,
    "unet/diffusion_pytorch_model.fp16.safetensors": b"half" * 99,
    "unet/diffusion_pytorch_model.non_ema.safetensors": b"other" * 99,
    "unet/diffusion_pytorch_model.bin": b"pickled" * 99,
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.fp16.safetensors": b"half" * 99,
    "tokenizer/merges.txt": b"a b",
    "scheduler/scheduler_config.json": b"{}",
    "safety_checker/model.safetensors": b"not used" * 99,
}


def test_of_a_pipeline_come_its_components_once_and_safe(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files = dict(PIPELINE)
    result = fetched("org/tiny", publisher.url)
    snapshot = Path(result["path"])
    assert left(snapshot) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/merges.txt",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]
    assert local.locate("org/tiny") == snapshot


def test_a_pipeline_with_pickles_alone_is_not_fetched(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files = {name: data for name, data in PIPELINE.items() if not name.startswith("vae/diff")}
    publisher.files["vae/diffusion_pytorch_model.bin"] = b"pickled" * 99
    result = fetched("org/tiny", publisher.url)
    assert result["code"] == "E307"
    assert "vae" in result["message"]
    assert local.locate("org/tiny") is None
    assert left(tmp_path / "hf") == []


@pytest.mark.parametrize("commit", ["{elsewhere}", "../../../../elsewhere", "..", ".", "a/b", "", "\x00", "c" * 300])
def test_no_commit_leads_out_of_the_cache(commit: str, tmp_path: Path) -> None:
    repo, elsewhere = tmp_path / "hf/hub/models--org--tiny", tmp_path / "elsewhere"
    for folder in (elsewhere, repo / "refs", repo / "snapshots/a/b"):
        folder.mkdir(parents=True)
    for folder in (elsewhere, repo, repo / "snapshots", repo / "snapshots/a/b"):
        (folder / "model.safetensors").write_bytes(b"weights")
    (repo / "refs/main").write_text(commit.format(elsewhere=elsewhere))
    assert local.locate("org/tiny") is None


@pytest.mark.parametrize("revision", ["{written}", "../../../written", "a/../../../../written", ""])
def test_a_revision_is_written_where_revisions_are(revision: str, tmp_path: Path) -> None:
    repo, written = tmp_path / "hf/hub/models--org--tiny", tmp_path / "written"
    with pytest.raises(ConfigError, match="E250"):
        fetch.write_ref(repo, revision.format(written=written), COMMIT)
    assert left(tmp_path) == []
    fetch.write_ref(repo, "refs/pr/1", COMMIT)
    assert left(tmp_path) == ["hf/hub/models--org--tiny/refs/refs/pr/1"]


def test_a_file_in_a_folder_of_a_repository_is_of_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = tmp_path / "hf/hub/models--org--tiny/snapshots" / COMMIT / "nets/small/one.pt"
    held.parent.mkdir(parents=True)
    held.write_bytes(b"weights")
    source = Hub("org/tiny", COMMIT, "nets/small/one.pt")
    monkeypatch.setitem(CATALOGUE, "one", Weights("one", source, 1, "MIT", "a test"))
    assert local.locate("one") == held
    assert local.identity("one", Store(tmp_path / "store").source_digest) == f"org/tiny@{COMMIT}/nets/small/one.pt"
    assert display_name("one", held) == f"org/tiny@{COMMIT[:8]}/nets/small/one.pt"


@pytest.mark.parametrize(
    "moved", [{}, {"XDG_CACHE_HOME": "/x"}, {"HF_HOME": "/a", "TORCH_HOME": "/b"}, {"HUGGINGFACE_HUB_CACHE": "/c"}]
)
def test_both_caches_are_where_their_owners_look(moved: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for name in ("HF_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name)
    for name, value in moved.items():
        monkeypatch.setenv(name, value)
    assert str(local.torch_cache()) == f"{torch.hub.get_dir()}/checkpoints"
    code = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"  # read once, on import
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert str(local.hub_cache()) == result.stdout.strip()


# ---- the catalogue -------------------------------------------------------------------------------------------------


def test_torchvisions_files_are_where_torchvision_says() -> None:
    from torchvision import models
    from torchvision.models import optical_flow

    known = {
        "raft_large": optical_flow.Raft_Large_Weights.DEFAULT,
        "raft_small": optical_flow.Raft_Small_Weights.DEFAULT,
        "lpips_alex": models.AlexNet_Weights.DEFAULT,
        "lpips_vgg": models.VGG16_Weights.DEFAULT,
        "lpips_squeeze": models.SqueezeNet1_1_Weights.DEFAULT,
    }
    for name, weights in known.items():
        source = CATALOGUE[name].source
        assert isinstance(source, Url)
        assert source.url == weights.url
        assert CATALOGUE[name].megabytes * 1e6 == pytest.approx(4 * weights.meta["num_params"], rel=0.02)


def test_inception_is_the_file_and_the_size_that_torch_fidelity_uses() -> None:
    import torch
    from torch_fidelity import feature_extractor_inceptionv3 as inception

    source = CATALOGUE["inception_fid"].source
    assert isinstance(source, Url)
    assert source.url == inception.URL_INCEPTION_V3
    with torch.device("meta"):
        blocks = [
            inception.BasicConv2d(3, 32, kernel_size=3, stride=2), inception.BasicConv2d(32, 32, kernel_size=3),
            inception.BasicConv2d(32, 64, kernel_size=3, padding=1), inception.BasicConv2d(64, 80, kernel_size=1),
            inception.BasicConv2d(80, 192, kernel_size=3), inception.InceptionA(192, pool_features=32),
            inception.InceptionA(256, pool_features=64), inception.InceptionA(288, pool_features=64),
            inception.InceptionB(288), *(inception.InceptionC(768, channels_7x7=c) for c in (128, 160, 160, 192)),
            inception.InceptionD(768), inception.InceptionE_1(1280), inception.InceptionE_2(2048),
            torch.nn.Linear(2048, 1008),
        ]  # fmt: skip
    tensors = [t for block in blocks for t in (*block.parameters(), *block.buffers())]
    assert CATALOGUE["inception_fid"].megabytes * 1e6 == pytest.approx(4 * sum(t.numel() for t in tensors), rel=0.02)


def test_every_single_file_names_its_sha256() -> None:
    for entry in CATALOGUE.values():
        assert entry.megabytes > 0
        assert entry.licence
        assert entry.serves
        if isinstance(entry.source, Url):
            assert entry.source.url.startswith("https://")
            assert len(bytes.fromhex(entry.source.sha256_prefix)) >= 4


# ---- single files --------------------------------------------------------------------------------------------------


def test_a_file_comes_whole_and_is_checked(publisher: Publisher, tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(3_000_000)
    name = f"net-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    publisher.files[name] = data
    said, seen = [], []
    source = Url(f"{publisher.url}/org/x/x/files/{name}")
    path = fetch.from_url(source, local.torch_cache(), lambda *at: seen.append(at), said.append)
    assert path == tmp_path / "torch/hub/checkpoints" / name
    assert path.read_bytes() == data
    assert seen[-1] == (3_000_000, 3_000_000)
    assert "3.0 MB" in said[0]
    assert left(tmp_path / "torch") == [f"hub/checkpoints/{name}"]


def test_a_catalogue_entry_is_found_where_it_was_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through `fetch` itself, from a file: address."""
    data = b"small weights"
    held = tmp_path / f"net-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    held.write_bytes(data)
    entry = Weights("net", Url(held.as_uri()), 1, "MIT", "a test")
    monkeypatch.setitem(CATALOGUE, "net", entry)
    path = fetch.fetch("net")
    assert local.locate("net") == local.require("net") == path
    assert path.read_bytes() == data
    held.unlink()
    assert fetch.fetch("net") == path  # here already: nothing is asked for
    path.unlink()
    with pytest.raises(MachineError) as refusal:
        fetch.fetch("net")
    assert refusal.value.code == "E307"


@pytest.mark.parametrize(
    ("name", "cut", "code"),
    [("net-00000000.pth", False, "E309"), ("net-11111111.pth", True, "E308"), ("net-22222222.pth", None, "E307")],
)
def test_what_is_wrong_with_a_file_leaves_nothing(
    name: str, cut: bool | None, code: str, publisher: Publisher, tmp_path: Path
) -> None:
    if cut is not None:
        publisher.files[name] = b"bytes" * 100_000
    publisher.cut = {name} if cut else set()
    with pytest.raises(MachineError) as failure:
        fetch.from_url(Url(f"{publisher.url}/a/b/c/files/{name}"), tmp_path / "to", lambda *at: None, lambda text: None)
    assert failure.value.code == code
    assert failure.value.hint
    assert left(tmp_path / "to") == []


def test_what_fails_on_the_way_here_is_no_matter_of_this_disk(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken TLS record counts as errno 1, which for a file would mean that writing is not permitted."""
    broken = ssl.SSLError(1, "[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC]")
    publisher.files["net-00000000.pth"] = b"bytes" * 1_000_000
    read = http.client.HTTPResponse.read

    def torn(answer: Any, *words: Any) -> bytes:
        if answer.length and answer.length < 4_000_000:
            raise broken
        return read(answer, *words)

    monkeypatch.setattr(http.client.HTTPResponse, "read", torn)
    url = Url(f"{publisher.url}/a/b/c/files/net-00000000.pth")
    with pytest.raises(MachineError, match="E308") as failure:
        fetch.from_url(url, tmp_path / "to", lambda *at: None, lambda text: None)
    assert "1.0 MB of 5.0 MB" in failure.value.message
    assert "BAD_RECORD_MAC" in failure.value.message

    def refused(*words: Any) -> None:
        raise broken

    monkeypatch.setattr(http.client.HTTPResponse, "begin", refused)
    with pytest.raises(MachineError, match="E306"):
        fetch.from_url(url, tmp_path / "to", lambda *at: None, lambda text: None)
    assert left(tmp_path / "to") == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_what_fails_on_this_disk_is_no_matter_of_the_network(publisher: Publisher) -> None:
    publisher.files["net-00000000.pth"] = b"bytes" * 1_000_000
    url = f"{publisher.url}/a/b/c/files/net-00000000.pth"
    with pytest.raises(MachineError, match="E503"), explain_write_errors(Path("/dev")):
        fetch.download(url, Path("/dev/full"), lambda *at: None, lambda text: None)


@pytest.mark.parametrize("said", ["many", "-5", "", "1e3", "²"])
def test_a_length_that_is_none_is_not_waited_for(said: str, publisher: Publisher, tmp_path: Path) -> None:
    data = b"bytes" * 1000
    name = f"net-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    publisher.files[name], publisher.lengths[name] = data, said
    seen: list[tuple[int, int]] = []
    source = Url(f"{publisher.url}/a/b/c/files/{name}")
    path = fetch.from_url(source, tmp_path / "to", lambda *at: seen.append(at), lambda text: None)
    assert path.read_bytes() == data
    assert seen[-1] == (5000, 0)


def test_no_network_is_said(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:9/net-00000000.pth", "http://nowhere.invalid/net-00000000.pth"):
        with pytest.raises(MachineError) as failure:
            fetch.from_url(Url(url), tmp_path / "to", lambda *at: None, lambda text: None)
        assert failure.value.code == "E306"
    assert left(tmp_path / "to") == []


def test_a_full_disk_and_a_folder_that_is_none_are_said(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "to").write_text("a file")
    with pytest.raises(RetakeError) as failure:
        fetch.from_url(Url(f"{publisher.url}/x-00.pth"), tmp_path / "to", lambda *at: None, lambda text: None)
    assert failure.value.code == "E502"


# ---- repositories --------------------------------------------------------------------------------------------------


def test_a_repository_comes_without_its_code(publisher: Publisher, tmp_path: Path) -> None:
    result = fetched("org/tiny", publisher.url)
    folder = Path(result["path"])
    assert local.locate("org/tiny") == folder
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "merges.txt", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == publisher.files["model.safetensors"]
    assert "3 files, 102.4 kB, licence mit, commit 1234567890" in result["said"][0]
    total = sum(len(publisher.files[p.name]) for p in folder.iterdir())
    assert result["seen"][-1] == [total, total]
    assert local.identity("org/tiny", Store(tmp_path / "store").source_digest) == f"org/tiny@{COMMIT}"
    asked = len(publisher.asked)
    assert fetched("org/tiny", publisher.url)["path"] == result["path"]
    assert len(publisher.asked) == asked  # here already

    from huggingface_hub import snapshot_download

    assert snapshot_download("org/tiny", cache_dir=local.hub_cache(), local_files_only=True) == str(folder)


def test_a_revision_is_the_one_that_comes(publisher: Publisher) -> None:
    publisher.commit = NEWER
    assert Path(fetched(f"org/tiny@{COMMIT}", publisher.url)["path"]).name == COMMIT
    assert local.locate("org/tiny") is None
    assert Path(fetched("org/tiny", publisher.url)["path"]).name == NEWER
    assert fetched("org/tiny@v9", publisher.url)["code"] == "E307"


def test_two_entries_of_one_repository_stay_at_one_commit(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is fetched when the publisher has moved on; the first must still be found, in the same keys."""
    folder = Path(fetched("org/tiny", publisher.url)["path"])
    publisher.commit = NEWER
    source = Hub("org/tiny", file="weights.pt")
    monkeypatch.setitem(CATALOGUE, "one", Weights("one", source, 1, "MIT", "a test"))
    assert local.locate("one") is None
    code = (
        "from retake.weights import fetch, local; from retake.weights.catalogue import Hub;"
        "fetch.from_hub(Hub('org/tiny', file='weights.pt'), local.hub_cache(), print, print)"
    )
    environment = os.environ | {"HF_ENDPOINT": publisher.url}
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, env=environment, check=True, capture_output=True)
    assert local.locate("one") == folder / "weights.pt"
    assert local.locate("org/tiny") == folder


def test_without_safetensors_the_pickle_comes_and_that_is_said(publisher: Publisher) -> None:
    del publisher.files["model.safetensors"]
    result = fetched("org/tiny", publisher.url)
    assert (Path(result["path"]) / "pytorch_model.bin").is_file()
    assert "pickle" in result["said"][1]
    assert local.locate("org/tiny") == Path(result["path"])


def test_failures_of_the_hub_have_codes_and_leave_nothing(publisher: Publisher, tmp_path: Path) -> None:
    for reference, code in (("gone/x", "E307"), ("gated/x", "E307"), ("ill/x", "E306")):
        result = fetched(reference, publisher.url)
        assert (result["code"], bool(result["hint"])) == (code, True)
    assert fetched("org/tiny", "http://127.0.0.1:9")["code"] == "E306"
    result = fetched("org/tiny", publisher.url, HF_HUB_OFFLINE="1")
    assert result["code"] == "E306"
    assert "HF_HUB_OFFLINE" in result["message"]
    publisher.commit = "../../../elsewhere"
    assert fetched("org/tiny", publisher.url)["code"] == "E307"
    publisher.commit = COMMIT
    publisher.lies = {"model.safetensors"}
    assert fetched("org/tiny", publisher.url)["code"] == "E309"
    assert local.locate("org/tiny") is local.locate(f"org/tiny@{COMMIT}") is None
    assert [name for name in left(tmp_path / "hf") if "snapshots" in name or "refs" in name] == []
    del publisher.files["model.safetensors"], publisher.files["pytorch_model.bin"]
    assert fetched("org/tiny", publisher.url)["code"] == "E307"


def test_a_repository_cut_off_half_way_is_not_there_and_comes_the_next_time(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.cut = {"model.safetensors"}
    result = fetched("org/tiny", publisher.url)
    assert result["code"] == "E308"
    assert local.locate("org/tiny") is local.locate(f"org/tiny@{COMMIT}") is None
    assert [name for name in left(tmp_path / "hf") if "snapshots" in name or "incomplete" in name] == []
    publisher.cut = set()
    asked = len(publisher.asked)
    assert local.locate("org/tiny") is None
    assert fetched("org/tiny", publisher.url)["path"] == str(local.locate("org/tiny"))
    again = [path for path in publisher.asked[asked:] if path.endswith("config.json")]
    assert len(again) == 1  # its head only: what came whole is not fetched twice


@pytest.mark.parametrize("where", ["config.json", "tokenizer_config.json", "within", "escaped", "a list"])
def test_a_folder_that_names_code_is_not_opened(where: str, clip_folder: Path, tmp_path: Path) -> None:
    from transformers import CLIPModel, CLIPTokenizer

    folder = tmp_path / "clip"
    shutil.copytree(clip_folder, folder)
    assert load_pretrained(CLIPModel, folder, "CLIP").config.model_type == "clip"
    file = folder / (where if where.endswith(".json") else "config.json")
    about = json.loads(file.read_text())
    code: Any = ["evil.Evil", None] if where == "a list" else {"AutoModel": "org/evil--evil.Evil"}
    (about["text_config"] if where == "within" else about)["auto_map"] = code
    text = json.dumps(about)
    file.write_text(text.replace("auto_map", "auto\\u005fmap") if where == "escaped" else text)
    for kind in (CLIPModel, CLIPTokenizer):
        with pytest.raises(ConfigError, match="E263") as refusal:
            load_local(kind, folder, "CLIP")
        assert str(file) in refusal.value.message
    with pytest.raises(ConfigError, match="E263"):
        load_pretrained(CLIPModel, folder, "CLIP")


def test_a_word_of_a_vocabulary_names_no_code(clip_folder: Path, tmp_path: Path) -> None:
    from transformers import CLIPModel

    folder = tmp_path / "clip"
    shutil.copytree(clip_folder, folder)
    (folder / "vocab.json").write_text(json.dumps({"auto": 0, "auto_map": 1}))
    assert load_local(CLIPModel, folder, "CLIP").config.model_type == "clip"
    (folder / "vocab.json").write_text('{"auto": ')
    with pytest.raises(ConfigError, match="E262") as refusal:
        load_local(CLIPModel, folder, "CLIP")
    assert "vocab.json" in refusal.value.message


@pytest.mark.parametrize("safe", [True, False])
def test_a_fetched_model_loads_from_where_it_lies(safe: bool, publisher: Publisher, tmp_path: Path) -> None:
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    tower = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=tower | {"vocab_size": 32, "max_position_embeddings": 8},
        vision_config=tower | {"image_size": 8, "patch_size": 4},
        projection_dim=4,
    )
    model = CLIPModel(config)
    model.save_pretrained(tmp_path / "made")
    if not safe:
        (tmp_path / "made/model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "made/pytorch_model.bin")
    publisher.files = {p.name: p.read_bytes() for p in (tmp_path / "made").iterdir()}
    fetched("org/tiny", publisher.url)
    loaded = CLIPModel.from_pretrained(local.require("org/tiny"), local_files_only=True)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])


# ---- doctor --------------------------------------------------------------------------------------------------------


def test_doctor_lists_what_is_here_and_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shipped, "path", property(lambda self: tmp_path / "shipped" / self.file))
    source = CATALOGUE["raft_small"].source
    assert isinstance(source, Url)
    held = tmp_path / "torch/hub/checkpoints" / source.file
    held.parent.mkdir(parents=True)
    held.write_bytes(b"x" * 12_345)
    check = doctor.weights()
    assert check["state"] == "ok"
    assert f"1 of {len(CATALOGUE)} here, 12.3 kB" in check["text"]
    json.dumps(check)
    entries = {entry["name"]: entry for entry in check["entries"]}
    assert set(entries) == set(CATALOGUE)
    assert (entries["raft_small"]["path"], entries["raft_small"]["bytes"]) == (str(held), 12_345)
    assert (entries["raft_large"]["present"], entries["raft_large"]["path"]) == (False, None)
    lines = weight_files.table(check["entries"])
    assert len(lines) == len(CATALOGUE)
    for entry, line in zip(check["entries"], lines, strict=True):
        assert entry["licence"] in line
        wanted = entry["path"] if entry["present"] else entry["command"]
        assert wanted in line
        if entry["name"] in FETCHED:
            assert entry["command"] == f"retake weights {entry['name']}"


def test_weights_are_got_by_name_and_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    data = b"small weights"
    held = tmp_path / f"net-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    held.write_bytes(data)
    monkeypatch.setitem(CATALOGUE, "net", Weights("net", Url(held.as_uri()), 1, "MIT", "a test"))
    got = weight_files.get(["net", str(held)], Console())
    assert [(entry["present"], entry["bytes"], entry["licence"]) for entry in got] == [
        (True, len(data), "MIT"),
        (True, len(data), "yours"),
    ]
    assert got[0]["path"] == str(local.locate("net"))
    result = capsys.readouterr()
    assert "net: 1 MB, MIT, for a test" in result.err
    assert result.out == ""
    with pytest.raises(ConfigError):
        weight_files.get(["net", "nonsense"], Console(quiet=True))
