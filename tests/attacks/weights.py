"""Weights: pickles, lying headers, folders that name code, and references that lead elsewhere."""

from __future__ import annotations

import functools
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .case import HARMLESS, LOOKUP, Case, file_case, readable
from .folders import clip_with, of_transformers, only, put

FAMILY = "weights"
ABSENT = ("E250", "E302")
REFERENCES = [
    "org/repo@../../x",
    "org/repo@",
    "org/repo@a b",
    "org/repo@a\nb",
    "org/repo@" + "a" * 300,
    "../x",
    "../../etc/none",
    "org/../x",
    "org/..",
    "./x/y",
    "org//repo",
    "org/repo/x",
    "org/repo\0",
    "org/\u0440epo",
    "\uff4frg/repo",
    "file:///etc/passwd",
    "http://example.org/x.safetensors",
    "https://huggingface.co/org/repo",
    "hf://org/repo",
    "s3://bucket/x",
    "git+https://example.org/x",
    "pkg://os",
    "~nobody-here/x",
    "$HOME/x",
    LOOKUP,
    "raft_large\n",
    "RAFT_LARGE",
    "raft_large/../x",
    "",
    " ",
    "-",
    "--help",
    ".",
    "x" * 100_000,
    "\x1b[31m/x",
    "\ud800/x",
    "org/repo@refs/pr/1",
    "org/repo",
    "models--org--repo/x",
    "/dev/zero",
    "/dev/stdin",
    "/dev/null",
]


class Call:
    """Pickled, it calls os.system when it is read."""

    def __reduce__(self) -> Any:
        return os.system, ("touch sentinel",)


class Reading:
    def __reduce__(self) -> Any:
        return open, ("sentinel", "w")


class Evaluated:
    def __reduce__(self) -> Any:
        return eval, ("__import__('os').system('touch sentinel')",)


def pickles() -> dict[str, bytes]:
    found = {
        f"{kind.__name__} {protocol}": pickle.dumps(kind(), protocol)
        for kind in (Call, Reading, Evaluated)
        for protocol in (0, 2, 4)
    }
    found["in a table"] = pickle.dumps({"weight": Call()})
    found["by hand"] = b"cposix\nsystem\n(S'touch sentinel'\ntR."
    found["a name alone"] = b"cos\nsystem\n."
    found["a deep list"] = b"]" * 10_000 + b"a" * 9_999 + b"."
    found["memory"] = b"\x80\x04B\xff\xff\xff\x7f"
    found["a persistent name"] = b"Pweights\n."
    return found


def archive(body: bytes) -> bytes:
    """As torch.save writes it today: a zip with a pickle in it."""
    import io

    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as packed:
        packed.writestr("archive/data.pkl", body)
        packed.writestr("archive/version", "3\n")
        packed.writestr("archive/byteorder", "little")
    return sink.getvalue()


def safetensors(head: Any, body: bytes = bytes(16), length: int | None = None) -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def tensor(shape: list[Any], start: int, end: int, kind: Any = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


def headers() -> dict[str, bytes]:
    good = tensor([4], 0, 16)
    return {
        "no head": b"",
        "half a head": b"\x10\0\0",
        "a length of everything": safetensors({"a": good}, length=(1 << 64) - 1),
        "a length of 1 TiB": safetensors({"a": good}, length=1 << 40),
        "a length of 101 MB": safetensors({"a": good}, length=101_000_000),
        "a length beyond the file": safetensors({"a": good}, length=10_000),
        "a length of nothing": safetensors({"a": good}, length=0),
        "tensors over one another": safetensors({"a": good, "b": tensor([4], 8, 24)}, bytes(24)),
        "one place for two": safetensors({"a": good, "b": good}),
        "a hole": safetensors({"a": good, "b": tensor([1], 32, 36)}, bytes(36)),
        "an end before its start": safetensors({"a": tensor([4], 16, 0)}),
        "negative": safetensors({"a": tensor([4], -16, 0)}),
        "a negative shape": safetensors({"a": tensor([-4], 0, 16)}),
        "a giant shape": safetensors({"a": tensor([1 << 62], 0, 16)}),
        "a shape that overflows": safetensors({"a": tensor([1 << 33, 1 << 33], 0, 16)}),
        "a shape of nothing": safetensors({"a": tensor([0, 1 << 60], 0, 16)}),
        "beyond the file": safetensors({"a": tensor([1 << 20], 0, 1 << 22)}),
        "bytes behind": safetensors({"a": good}, bytes(4096)),
        "an unknown kind": safetensors({"a": tensor([4], 0, 16, "F33")}),
        "a kind that is none": safetensors({"a": tensor([4], 0, 16, ["F32"])}),
        "text in a shape": safetensors({"a": tensor(["4"], 0, 16)}),
        "a number for a table": safetensors(b"1"),
        "a list": safetensors([1]),
        "no JSON": safetensors(b"{" * 64),
        "deep": safetensors(b"[" * 100_000),
        "not text": safetensors(b"\xff\xfe" * 32),
        "metadata that are none": safetensors({"__metadata__": {"a": {"b": 1}}, "a": good}),
        "a name twice": safetensors(
            b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
        ),
        "zeros": bytes(4096),
    }


# ---- the entries -------------------------------------------------------------------------------------------------


def of_network(path: Path) -> None:
    from retake.networks.checkpoint import load_tensors

    load_tensors(path)


def of_diffusion(path: Path) -> None:
    from retake.diffusion.loading.components import tensors

    tensors(path, "the network")


def of_reference(text: str) -> None:
    from retake.weights.local import require

    require(text)


def file_of(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def cases() -> Iterator[Case]:
    for text in REFERENCES:
        yield Case(
            FAMILY,
            f"reference {readable(text)}",
            functools.partial(lambda t, _: of_reference(t), text),
            frozenset((*ABSENT, HARMLESS) if text == "." else ABSENT),
        )
    for name, body in pickles().items():
        for suffix in (".pt", ".pth", ".bin", ".ckpt", ".safetensors"):
            for form, content in (("bare", body), ("zipped", archive(body))):
                label = f"pickle {name} {form} as {suffix}"
                yield file_case(FAMILY, label, file_of(f"w{suffix}", content), of_network, "E262")
        yield file_case(FAMILY, f"diffusion: pickle {name} as .bin", file_of("w.bin", body), of_diffusion, "E282")
        yield file_case(
            FAMILY, f"diffusion: pickle {name} as .safetensors", file_of("w.safetensors", body), of_diffusion, "E289"
        )
        for file in ("pytorch_model.bin", "model.safetensors"):
            yield file_case(
                FAMILY, f"CLIP: pickle {name} as {file}", clip_with(only(file, body)), of_transformers, "E262"
            )
    for name, content in headers().items():
        allowed = (HARMLESS,) if name in ("a shape of nothing", "a name twice") else ()
        yield file_case(FAMILY, f"header {name}", file_of("w.safetensors", content), of_network, "E262", *allowed)
        yield file_case(
            FAMILY, f"diffusion: header {name}", file_of("w.safetensors", content), of_diffusion, "E289", *allowed
        )
        yield file_case(
            FAMILY, f"CLIP: header {name}", clip_with(put("model.safetensors", content)), of_transformers, "E262"
        )
