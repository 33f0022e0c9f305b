"""Weights: references, the catalogue, and what is found on disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.publisher import COMMIT, Publisher, fetched, left

from flows.terminal.console import Console
from flows.upkeep import doctor
from flows.upkeep import weights as weight_files
from retake.errors import ConfigError, MachineError
from retake.networks.checkpoint import display_name
from retake.store import Store
from retake.weights import fetch, local
from retake.weights.catalogue import CATALOGUE, Hub, Shipped, Url, Weights

pytestmark = pytest.mark.usefixtures("own_caches")


# ---- references ----------------------------------------------------------------------------------------------------


NONE = ("raft_larg", "no such thing", "a/b/c", "../x", "./x", "/nowhere", "", " ", "~nobody/x", "a" * 300)
NO_REPOSITORY = ("a" * 300 + "/b", "org/" + "b" * 300, "org/repo@" + "c" * 300, "org/repo@", "org/repö")
NO_REVISION = ("org/repo@../../x", "org/repo@/etc/passwd", "org/repo@a/../../b", "org/repo@a//b", "org/repo@./a")


@pytest.mark.parametrize("reference", [*NONE, *NO_REPOSITORY, *NO_REVISION])
def test_a_reference_that_is_none_is_refused(reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # beside which there is no folder x
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
