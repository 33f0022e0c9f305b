"""Folders of models: what names code, leads elsewhere, or is not what it says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .case import HARMLESS, Case, file_case, readable
from .folders import (
    changed,
    clean,
    clip_with,
    link_to,
    of_pipeline,
    of_text,
    of_tokenizer,
    of_transformers,
    only,
    pipeline_with,
    put,
)
from .weights import ABSENT, FAMILY, of_network, of_reference, pickles

CODE = {"AutoModel": "evil.Model", "AutoConfig": "evil--Config", "AutoTokenizer": ["evil.Slow", None]}
CONFIGS: dict[str, dict[str, Any]] = {
    "auto_map": {"auto_map": CODE},
    "auto_map deep inside": {"text_config": {"auto_map": CODE}},
    "auto_map of a repository": {"auto_map": {"AutoModel": "org/repo--evil.Model"}},
    "trust": {"trust_remote_code": True, "auto_map": CODE},
    "another kind": {"model_type": "bert"},
    "a path for a kind": {"model_type": "../../x"},
    "a list for a kind": {"model_type": ["clip"]},
    "giant": {"projection_dim": 1 << 40},
    "negative": {"projection_dim": -1},
    "text for a number": {"projection_dim": "x"},
    "giant inside": {"text_config": {"vocab_size": 1 << 50, "hidden_size": 1 << 20}},
    "a kernel of the hub": {"attn_implementation": "org/kernel"},
    "a kernel of the hub, inside": {"_attn_implementation": "org/kernel"},
    "an unknown type": {"dtype": "__import__('os').system('touch sentinel')"},
    "quantised by a package": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
    "quantised by nobody": {"quantization_config": {"quant_method": "../x"}},
    "a path for text": {"text_config": "/etc/passwd"},
    "a list for text": {"text_config": [1]},
}


Spoil = Callable[[Path], object]
JSONS = (
    "tokenizer_config.json",
    "processor_config.json",
    "x.JSON",
    "preprocessor_config.json",
    "generation_config.json",
)
NO_JSON = {"nothing": b"", "deep": b"[" * 100_000, "a list": b"[]", "not text": b"\xff\xfe", "digits": b"9" * 5000}


def clip(name: str, spoil: Spoil, *expected: str, act: Callable[[Any], object] = of_transformers) -> Case:
    return file_case(FAMILY, f"CLIP: {name}", clip_with(spoil), act, *expected)


def pipe(name: str, spoil: Spoil, *expected: str, act: Callable[[Any], object] = of_pipeline) -> Case:
    return file_case(FAMILY, f"pipeline: {name}", pipeline_with(spoil), act, *expected)


def cases() -> Iterator[Case]:
    yield from of_clip()
    yield from elsewhere()
    yield from of_pipelines()
    yield from of_components()


def of_clip() -> Iterator[Case]:
    for name, values in CONFIGS.items():
        loads = "kernel" in name or name in ("an unknown type", "quantised by nobody")
        allowed = ("E262", "E263", HARMLESS) if loads else ("E262", "E263")
        yield clip(f"config: {name}", changed("config.json", values), *allowed)
    for file in JSONS:
        yield clip(f"auto_map in {file}", changed(file, {"a": [{"auto_map": CODE}]}), "E263")
        yield clip(f"auto_map in {file} of a tokenizer", changed(file, {"auto_map": CODE}), "E263", act=of_tokenizer)
        for text, content in {"deep": b"[" * 100_000, "text": b"{", "not text": b"\xff\xfe", "NUL": b"\0"}.items():
            yield clip(f"{file} is {text}", put(file, content), "E262")
    for content in (b"", b"[" * 100_000, b"[]", b"null", b"\xff", b'{"model_type": NaN}', b"9" * 5000):
        yield clip(f"config.json is {readable(content[:20])}", put("config.json", content), "E262")
    yield clip(
        "a tokenizer of another class",
        changed("tokenizer_config.json", {"tokenizer_class": "os.system"}),
        "E262",
        HARMLESS,
        act=of_tokenizer,
    )
    for key in ("vocab_file", "tokenizer_file", "merges_file"):
        spoil = changed("tokenizer_config.json", {key: "/etc/passwd"})
        yield clip(f"a tokenizer whose {key} is elsewhere", spoil, "E262", HARMLESS, act=of_tokenizer)


def elsewhere() -> Iterator[Case]:
    """Links, devices, pipes, and indices that lead out of a folder."""
    for target in ("/dev/zero", "/dev/null", "/etc/passwd", "/nowhere", "config.json"):
        for file in ("config.json", "model.safetensors"):
            yield clip(f"{file} is a link to {target}", link_to(file, target), "E262")
    for file in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        yield clip(f"{file} is a link to /dev/zero", link_to(file, "/dev/zero"), "E262", act=of_tokenizer)
    outside = json.dumps({"metadata": {}, "weight_map": {"logit_scale": "../../../../etc/passwd"}}).encode()
    for file in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        yield clip(f"{file} leads out", only(file, outside), "E262")

    def pipe_at(folder: Path) -> Path:
        os.mkfifo(folder / "w.pt")
        return folder / "w.pt"

    yield file_case(FAMILY, "a pipe for weights", pipe_at, lambda path: of_reference(str(path)), *ABSENT)
    yield file_case(FAMILY, "a folder for weights", lambda folder: folder, of_network, "E262")
    for target in ("/dev/zero", "/etc/passwd"):
        spoil = link_to("model_index.json", target)
        yield pipe(f"model_index.json is a link to {target}", spoil, "E280", HARMLESS)  # a device is no index at all
        yield from (
            pipe(f"{role}: config.json is {target}", link_to(f"{role}/config.json", target), "E280")
            for role in ("vae", "unet")
        )


def of_pipelines() -> Iterator[Case]:
    entries = (["evil", "Model"], ["os", "system"], ["diffusers", "DiffusionPipeline"], ["transformers", "AutoModel"])
    for role in ("unet", "vae", "text_encoder", "tokenizer"):
        yield from (pipe(f"{role} is {entry}", changed("model_index.json", {role: entry}), "E283") for entry in entries)
    for role, entry in (
        ("scheduler", ["evil", "Model"]),
        ("unet", "x"),
        ("vae", ["diffusers"]),
    ):  # names that nobody takes
        yield pipe(f"{role} is {entry}", changed("model_index.json", {role: entry}), HARMLESS)
    for values in ({"_class_name": ["evil.py", "Pipeline"]}, {"_class_name": None}, {"_class_name": {"a": 1}}):
        yield pipe(f"{values}", changed("model_index.json", values), "E283")
    for name, content in NO_JSON.items():
        yield pipe(f"model_index.json is {name}", put("model_index.json", content), "E280")
        yield pipe(f"scheduler is {name}", put("scheduler/scheduler_config.json", content), "E280")
    for name, changes in {
        "a schedule of its own": {"beta_schedule": "../x"},
        "endless": {"num_train_timesteps": 1 << 40},
        "text": {"beta_start": "x"},
        "NaN": {"beta_start": float("nan")},
        "betas of text": {"trained_betas": "x"},
        "betas of lists": {"trained_betas": [[1], 2]},
        "an offset beyond": {"steps_offset": 1 << 70},
        "a shift of nothing": {"snr_shift_scale": 0},
    }.items():
        yield pipe(f"scheduler: {name}", changed("scheduler/scheduler_config.json", changes), "E276")


def of_components() -> Iterator[Case]:
    for role in ("vae", "unet"):
        for values in (
            {"_class_name": "os.system"},
            {"_class_name": ["x"]},
            {"_class_name": "AutoModel"},
            {"_class_name": None},
        ):
            yield pipe(f"{role}: {values}", changed(f"{role}/config.json", values), "E283", "E280")
        yield pipe(f"{role}: auto_map", changed(f"{role}/config.json", {"auto_map": CODE}), "E263")
        for name, content in NO_JSON.items():
            yield pipe(f"{role}: config.json is {name}", put(f"{role}/config.json", content), "E280")
    for name, changes in {
        "giant": {"block_out_channels": [1 << 30]},
        "text": {"block_out_channels": "x"},
        "negative": {"latent_channels": -1},
    }.items():
        yield pipe(f"vae: {name}", changed("vae/config.json", changes), "E289", "E284", "E280")
    for name, changes in {
        "auto_map": {"auto_map": CODE},
        "a class": {"architectures": ["Evil"]},
        "no class": {"architectures": [["x"]]},
        "giant": {"vocab_size": 1 << 40},
    }.items():
        spoil = changed("text_encoder/config.json", changes)
        yield pipe(f"text encoder: {name}", spoil, "E263", "E283", "E262", "E289", act=of_text)
    for name, body in pickles().items():
        yield pipe(f"vae: pickle {name}", clean("vae", "diffusion_pytorch_model.bin", body), "E282")
