"""Every test gets a store of its own, an environment without surprises, and the small clips of clips.py."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from helpers.publisher import Publisher

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))
# Before torch is imported, here and in child processes: networks as small as the tests' are slower on several threads,
# much slower while the machine is busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # child processes use what the first of them compiled

# Importing torch and diffusers makes a million objects that stay, which Python would go through twenty times over while
# their number grows: a tenth of what the suite costs.
gc.set_threshold(50_000, 10, 10)

import flows.places  # noqa: E402, F401  it looks for the project around it once, before any test goes elsewhere

# Files that take minutes, of which the first mostly waits for servers: begun at the end, they would run on alone.
FIRST = ("test_deployments.py", "test_moca.py", "test_campaign.py", "test_dataset_campaign.py", "test_dvc.py")
FIRST += ("test_installed.py",)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process more than cores: some tests wait, for servers, schedules and children."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(FIRST)))


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    """RETAKE_STORE points into the test's folder, and nothing of the machine's Prefect settings leaks in."""
    monkeypatch.setenv("RETAKE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("RETAKE_EDITS", str(tmp_path / "edits"))
    monkeypatch.setenv("RETAKE_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path / "store" / "retake"


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory) -> Path:
    """The database of a Prefect server, as its migrations leave it. They take half a server's start, so they are done
    once, for all processes of a run: a server that finds a copy as `prefect.db` in its home has nothing to migrate."""
    from filelock import FileLock

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    made, home = shared / "prefect.db", shared / "prefect"
    with FileLock(shared / "prefect.lock"):
        if not made.exists():
            upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
            subprocess.run(upgrade, env={**os.environ, "PREFECT_HOME": str(home)}, check=True, capture_output=True)
            (home / "prefect.db").rename(made)
    return made


# ---- networks: the genuine classes, small, with random weights, as folders and files that the loading code reads ----


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, **{f"{c}</w>": 2 + i for i, c in enumerate("abcdef")}}
    text = small | {"vocab_size": len(words), "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
    vision = small | {"image_size": 32, "patch_size": 8}
    folder = tmp_path_factory.mktemp("clip")
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    CLIPTokenizer(vocab=words, merges=[]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory) -> Path:
    import torch
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    folder = tmp_path_factory.mktemp("dino")
    ViTModel(ViTConfig(image_size=32, patch_size=8, **small), add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def trunks(tmp_path_factory) -> dict[str, Path]:
    """Random torchvision trunks as files: the features of their own state, which is all that LPIPS reads."""
    import torch
    import torchvision

    torch.manual_seed(0)
    files = {}
    for name, network in (("alex", torchvision.models.alexnet), ("squeeze", torchvision.models.squeezenet1_1)):
        files[name] = tmp_path_factory.mktemp("lpips") / f"{name}.pth"
        state = network(weights=None).state_dict()
        torch.save({key: value for key, value in state.items() if key.startswith("features")}, files[name])
    return files


@pytest.fixture(scope="session")
def small_depth(tmp_path_factory) -> Path:
    """The genuine classes at small size with random weights, saved as the hub has them."""
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    network = DepthAnythingForDepthEstimation(config)
    with torch.no_grad():  # random layers of this width give almost nothing: bring it to the range of a real map
        network.head.conv3.weight.mul_(3e7).abs_()
        network.head.conv3.bias.fill_(5)
    folder = tmp_path_factory.mktemp("depth_anything")
    network.save_pretrained(folder)
    DPTImageProcessor(
        size={"height": 56, "width": 56},
        keep_aspect_ratio=True,
        ensure_multiple_of=14,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_raft(tmp_path_factory) -> Path:
    import torch
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("raft") / "weights.pth"
    torch.save(raft_small(weights=None).state_dict(), path)
    return path


# ---- weights to fetch ------------------------------------------------------------------------------------------------


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    from helpers.publisher import publishing

    with publishing() as server:
        yield server


@pytest.fixture
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


# ---- a real browser --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    """Chromium, headless. Skips aloud where there is none; in CI that is a failure."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        message = "no Chromium on PATH: pages were NOT tested in a browser"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield chromium
        chromium.close()
