"""The weights that Retake's own settings name: where they come from, how large they are, and under which licence.

Sizes of hub repositories are those of the network's parameters in the precision in which they are stored there (half
for ZeroScope and CogVideoX, else float32), which a test counts on the real configuration; sizes of single files are the
publisher's. A revision is open ("main") until it is fetched: the commit that came is then part of every key.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TORCH = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Hub:
    """A repository of the Hugging Face hub, or one file of it."""

    repo: str
    revision: str = "main"
    file: str | None = None


@dataclass(frozen=True)
class Url:
    """One file, whose name ends with the first digits of its sha256; downloads are checked against them."""

    url: str

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def sha256_prefix(self) -> str:
        return self.file.rpartition(".")[0].rpartition("-")[2]


@dataclass(frozen=True)
class Shipped:
    """A folder next to this file, shipped with Retake."""

    file: str

    @property
    def path(self) -> Path:
        return Path(__file__).resolve().parent / self.file


@dataclass(frozen=True)
class Weights:
    """One entry, downloaded by `retake weights NAME`. serves: the settings that use it."""

    name: str
    source: Hub | Url | Shipped
    megabytes: float
    licence: str
    serves: str


CATALOGUE: dict[str, Weights] = {
    entry.name: entry
    for entry in (
        Weights("embedded", Shipped("embedded"), 7, "Apache-2.0", "model=embedded"),
        Weights("embedded_dit", Shipped("embedded_dit"), 11, "Apache-2.0", "model=embedded_dit"),
        Weights(
            "embedded_ivediff", Shipped("embedded_ivediff"), 20, "Apache-2.0", "model=embedded_ivediff edit=ivediff"
        ),
        Weights("motionv2v", Shipped("motionv2v"), 4, "Apache-2.0", "model=embedded_dit edit=motionv2v"),
        Weights("video_mae", Shipped("video_mae"), 4, "Apache-2.0", "retake train moalign"),
        Weights(
            "video_mae_v2_base",
            Hub("OpenGVLab/VideoMAEv2-Base"),
            345,
            "CC-BY-NC-4.0",
            "retake train moalign --encoder video_mae_v2_base",
        ),
        Weights(
            "judge",
            Shipped("judge"),
            1,
            "Apache-2.0",
            "metrics clip_score, cass, temporal_consistency, metrics.clip_score.weights=judge",
        ),
        Weights(
            "depth_anything_v2_small",
            Hub("depth-anything/Depth-Anything-V2-Small-hf"),
            99,
            "Apache-2.0",
            "depth=depth_anything",
        ),
        Weights(
            "raft_large",
            Url(TORCH + "raft_large_C_T_SKHT_V2-ff5fadd5.pth"),
            21,
            "BSD-3-Clause",
            "optical_flow=raft",
        ),
        Weights(
            "raft_small",
            Url(TORCH + "raft_small_C_T_V2-01064c6d.pth"),
            4,
            "BSD-3-Clause",
            "optical_flow=raft optical_flow.weights=raft_small",
        ),
        Weights(
            "sam2_tiny",
            Hub("facebook/sam2.1-hiera-tiny"),
            156,
            "Apache-2.0",
            "masks=sam2 masks.weights=sam2_tiny",
        ),
        Weights("sam2_small", Hub("facebook/sam2.1-hiera-small"), 184, "Apache-2.0", "masks=sam2"),
        Weights(
            "sam2_large",
            Hub("facebook/sam2.1-hiera-large"),
            898,
            "Apache-2.0",
            "masks=sam2 masks.weights=sam2_large",
        ),
        Weights(
            "sam2_small_pt",
            Hub("facebook/sam2.1-hiera-small", file="sam2.1_hiera_small.pt"),
            184,
            "Apache-2.0",
            "masks=sam2 masks.backend=sam2",
        ),
        Weights(
            "grounding_dino_tiny",
            Hub("IDEA-Research/grounding-dino-tiny"),
            689,
            "Apache-2.0",
            "masks=sam2 masks.text=WORDS",
        ),
        Weights(
            "clip_vit_b_32",
            Hub("openai/clip-vit-base-patch32"),
            605,
            "MIT",
            "metrics clip_score, cass, temporal_consistency, consistency",
        ),
        Weights("dino_vit_b_16", Hub("facebook/dino-vitb16"), 343, "Apache-2.0", "metrics consistency"),
        Weights("lpips_alex", Url(TORCH + "alexnet-owt-7be5be79.pth"), 244, "BSD-3-Clause", "metrics lpips"),
        Weights(
            "lpips_vgg",
            Url(TORCH + "vgg16-397923af.pth"),
            553,
            "BSD-3-Clause",
            "metrics lpips, metrics.lpips.weights=lpips_vgg",
        ),
        Weights(
            "lpips_squeeze",
            Url(TORCH + "squeezenet1_1-b8a52dc0.pth"),
            5,
            "BSD-3-Clause",
            "metrics lpips, metrics.lpips.weights=lpips_squeeze",
        ),
        Weights(
            "inception_fid",
            Url(
                "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
                "weights-inception-2015-12-05-6726825d.pth"
            ),
            96,
            "Apache-2.0",
            "metrics fid, of a dataset",
        ),
        Weights(
            "stable_diffusion_v1_5",
            Hub("stable-diffusion-v1-5/stable-diffusion-v1-5"),
            4265,
            "CreativeML OpenRAIL-M",
            "model=animatediff",
        ),
        Weights(
            "animatediff_v1_5_2",
            Hub("guoyww/animatediff-motion-adapter-v1-5-2"),
            1813,
            "Apache-2.0",
            "model=animatediff",
        ),
        Weights("modelscope", Hub("ali-vilab/text-to-video-ms-1.7b"), 7341, "CC-BY-NC-4.0", "model=modelscope"),
        Weights("zeroscope", Hub("cerspense/zeroscope_v2_576w"), 3671, "CC-BY-NC-4.0", "model=zeroscope"),
        Weights("cogvideox_2b", Hub("zai-org/CogVideoX-2b"), 13343, "Apache-2.0", "model=cogvideox_2b"),
        Weights("cogvideox_5b", Hub("zai-org/CogVideoX-5b"), 21096, "CogVideoX licence", "model=cogvideox_5b"),
        Weights("amt_s", Hub("lalala125/AMT", file="amt-s.pth"), 12, "CC-BY-NC-4.0", "metrics smoothness"),
    )
}
