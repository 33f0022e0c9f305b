"""Reading weights without running code that comes with them, and naming them in results."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retake.errors import ConfigError
from retake.weights.catalogue import Hub
from retake.weights.local import catalogue_entry, commit_of, local_path

if TYPE_CHECKING:
    from torch import Tensor


LARGEST = 1 << 27  # bytes of a JSON; the largest vocabularies have a fifth of that


def display_name(reference: str, path: Path) -> str:
    """The name of weights in results: `openai/clip-vit-base-patch32@3d74acf9`, `alexnet-owt-7be5be79.pth`, or the name
    of a local file or folder. `path` is what `require(reference)` returned."""
    if local_path(reference) is not None:
        return path.name
    source = catalogue_entry(reference).source
    if isinstance(source, Hub):
        return f"{source.repo}@{commit_of(source, path)[:8]}" + (f"/{source.file}" if source.file else "")
    return source.file


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Named tensors of a .pth, .pt or .safetensors file. Raises ConfigError E262 when it holds anything else.

    Pickled files are read with weights_only: anything but tensors and plain containers is refused, not run.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise whatever the bytes lead them to
        raise wrong_weights(path, "a file of weights", str(error)) from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise wrong_weights(path, "a file of weights", "it holds no table of tensors")
    return found


def load_pretrained(model: Any, path: Path, what: str, **settings: Any) -> Any:
    """A transformers model from a local folder, in float32, ready to infer.

    model: the class. what: a description for errors. Raises ConfigError E262 when the folder holds another
    model or lacks some of its weights; E263 when it needs code of its own.
    """
    import torch

    kind = model_type(path, what)
    if kind != model.config_class.model_type:  # transformers would warn and go on at random, at full size
        raise wrong_weights(path, what, f"its config.json is that of {kind!r}")
    loaded, info = load_local(model, path, what, output_loading_info=True, dtype=torch.float32, **settings)
    if missing := sorted(info["missing_keys"]):
        raise wrong_weights(path, what, f"{len(missing)} weights are missing, {missing[0]} among them")
    return loaded.eval().requires_grad_(False)


def load_local(kind: Any, path: Path, what: str, **settings: Any) -> Any:
    """`from_pretrained` of a transformers class on a local folder, offline and without remote code; no other function
    reads such a folder.

    Classes of models and processors pass parts of it on to transformers' Auto classes, which would run code from
    the folder, or ask on the terminal whether to. Neither happens here. Raises ConfigError E262 for a
    folder of something else, E263 for one that names code.
    """
    from safetensors import safe_open

    refuse_remote_code(path, what)
    try:
        variant = settings.get("variant")
        for file in sorted(path.glob("*.safetensors")):
            if file.is_file() and (f".{variant}" in file.name if variant else file.name.count(".") == 1):
                with safe_open(file, framework="pt"):
                    pass  # its header, which transformers reads only once the whole model stands
        with quietly():
            return kind.from_pretrained(path, local_files_only=True, trust_remote_code=False, **settings)
    except Exception as error:  # OSError, ValueError, RuntimeError, or what a damaged file leads to
        raise wrong_weights(path, what, str(error)) from error


def refuse_remote_code(path: Path, what: str) -> None:
    """Refuse a folder if any of its JSON files holds `auto_map`, at any depth: it names code to import, and in a nested
    model trust_remote_code=False does not stop it.

    Raises ConfigError E263 for an `auto_map`, E262 for a JSON that cannot be read.
    """
    for file in sorted(path.glob("*")):
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise wrong_weights(path, what, f"{file.name} is a device or a pipe")
        if file.suffix.lower() != ".json" or not file.is_file():
            continue
        nodes: list[dict[str, Any]] = []

        def remember(node: dict[str, Any], nodes: list[dict[str, Any]] = nodes) -> dict[str, Any]:
            nodes.append(node)
            return node

        try:
            json.loads(read_text(file), object_hook=remember)
        except (OSError, ValueError, RecursionError) as error:
            raise wrong_weights(path, what, f"{file.name} cannot be read: {error}") from error
        # In a vocabulary auto_map may be a word: it has a number then.
        if any(isinstance(node.get("auto_map"), str | list | dict) for node in nodes):
            raise remote_code_error(file)


def read_text(file: Path) -> str:
    """The text of a regular file of at most LARGEST bytes. Raises OSError for others, ValueError if it is not UTF-8."""
    if file.exists() and not file.is_file():
        raise OSError("it is not a plain file")
    if file.stat().st_size > LARGEST:
        raise OSError(f"it is larger than {LARGEST} bytes")
    return file.read_text(encoding="utf-8")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Within the block, transformers writes no progress bars on stderr, and no lists of weights that it leaves out:
    what is missing is said in our own words."""
    from transformers.utils import logging

    shown, told = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(told)
        if shown:
            logging.enable_progress_bar()


def model_type(path: Path, what: str) -> str:
    """`model_type` in config.json. Raises ConfigError E262 if it cannot be read."""
    return str(read_config(path, what).get("model_type"))


def read_config(path: Path, what: str) -> dict[str, Any]:
    """config.json of a folder. Raises ConfigError E262 if it cannot be read."""
    try:
        found = json.loads(read_text(path / "config.json"))
    except (OSError, ValueError, RecursionError) as error:
        raise wrong_weights(path, what, f"config.json cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise wrong_weights(path, what, "config.json cannot be read: it holds no settings")
    return found


def remote_code_error(file: Path) -> ConfigError:
    """ConfigError E263 for a folder that needs its own code."""
    return ConfigError(
        "E263",
        f"{file} wants code to be run that comes with the weights (auto_map), and Retake runs none",
        "Take the model in a form that transformers knows by itself; if this one is, take auto_map out of the file.",
    )


def wrong_weights(path: Path, what: str, why: str) -> ConfigError:
    """ConfigError E262 for weights that exist but do not fit the network."""
    first = next(iter(why.strip().splitlines()), "")[:200]
    return ConfigError(
        "E262", f"{path} is not {what}: {first}", "Give a folder or file of that network, or leave the setting out."
    )
