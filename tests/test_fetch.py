"""Weights are downloaded for real, from a server on this machine."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import CHECKOUT
from helpers.publisher import COMMIT, NEWER, Publisher, fetched, left

from retake.errors import ConfigError, MachineError, RetakeError
from retake.machine.disk import explain_write_errors
from retake.networks.checkpoint import load_local, load_pretrained
from retake.store import Store
from retake.weights import fetch, local
from retake.weights.catalogue import CATALOGUE, Hub, Url, Weights

pytestmark = pytest.mark.usefixtures("own_caches")


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
