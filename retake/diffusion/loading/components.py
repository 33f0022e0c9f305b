"""One component of a pipeline in diffusers' folder format, read without running anything that the folder brings.

A folder names its classes in text: in model_index.json, and in each component's config.json. Only names that a family
states are taken, and they are taken from the installed libraries. Weights are safetensors; a pickle is refused.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retake.errors import ConfigError
from retake.lookup import lookup, names
from retake.networks.checkpoint import load_local, quietly, read_text, refuse_remote_code

TRANSFORMERS = ("text_encoder", "tokenizer", "image_encoder")  # roles whose classes come from that library
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@functools.cache
def known() -> dict[str, dict[str, str]]:
    """Role -> class -> the library that has it: the classes that the families state, and no others."""
    found: dict[str, dict[str, str]] = {}
    for family in names("diffusion.families", "NETWORK"):
        for role, classes in lookup("diffusion.families", family, "NETWORK").CLASSES.items():
            library = "transformers" if role in TRANSFORMERS else "diffusers"
            found.setdefault(role, {}).update(dict.fromkeys(classes, library))
    return found


def find(role: str, *folders: Path | None) -> Path | None:
    """The first of `folders` that holds a component of that role: its own folder within."""
    return next((folder / role for folder in folders if folder is not None and (folder / role).is_dir()), None)


def read(role: str, folder: Path, dtype: torch.dtype = torch.float32, classes: tuple[str, ...] = ()) -> Any:
    """The component that lies in a folder, on the CPU, in `dtype`; `classes` narrows what it may be.

    Raises ConfigError E280 where its configuration cannot be read or is another class, E263 or E283 where it wants code
    of its own to run, E282 where its weights are a pickle, E289 where they are not all there or do not fit.
    """
    name = class_of(role, folder)
    if classes and name not in classes:
        raise ConfigError("E280", f"{folder} holds a {name}", f"Here it must be {' or '.join(classes)}.")
    kind = getattr(importlib.import_module(known()[role][name]), name)
    if role == "tokenizer":
        return load_local(kind, folder, f"a {name}")
    if known()[role][name] == "transformers":
        variant = safe(folder)
        more = {"variant": variant} if variant else {}
        found, info = load_local(
            kind, folder, f"a {name}", output_loading_info=True, dtype=dtype, use_safetensors=True, **more
        )
        return whole(found, info, folder)
    return of_class(kind, folder, dtype)


def of_class(kind: Any, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """A network of a class of diffusers, or of one built as they are, on the CPU, in `dtype`. Raises ConfigError E263,
    E280, E281, E282 and E289 as `read`, E283 where the folder names another class."""
    if (name := settings(folder / "config.json").get("_class_name")) != kind.__name__:
        raise ConfigError("E283", f"{folder} holds a {name!r}", f"Give the folder of a {kind.__name__}.")
    return whole(*_diffusers(kind, folder, dtype, safe(folder)), folder)


def whole(found: Any, info: dict[str, Any], folder: Path) -> Any:
    """A network as it was read, if all of its weights were there. Raises ConfigError E289."""
    for fault in ("missing_keys", "mismatched_keys"):
        if names := sorted(map(str, info[fault])):
            raise misfit(folder, f"{len(names)} {fault.replace('_keys', '')} weights, {names[0]} among them")
    return found.eval()


def outline(role: str, folder: Path) -> Any:
    """A diffusers component without weights, on the meta device: its configuration and its shape. Raises ConfigError
    E280, E263 or E283 as `read`, E289 for a configuration of something else."""
    name = class_of(role, folder)
    kind = getattr(importlib.import_module(known()[role][name]), name)
    refuse_remote_code(folder, f"a {name}")
    try:
        with quiet(), torch.device("meta"):
            return kind.from_config(settings(folder / "config.json"))
    except (TypeError, ValueError, RuntimeError) as error:
        raise misfit(folder, next(iter(str(error).strip().splitlines()), "")) from error


def _diffusers(kind: Any, folder: Path, dtype: torch.dtype, variant: str | None) -> tuple[Any, dict[str, Any]]:
    refuse_remote_code(folder, f"a {kind.__name__}")
    try:
        with quiet():
            return kind.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                torch_dtype=dtype,
                variant=variant,
                output_loading_info=True,
            )
    except Exception as error:  # OSError, ValueError, RuntimeError, or what a damaged file leads to
        raise misfit(folder, next(iter(str(error).strip().splitlines()), "")) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """diffusers draws bars and warns on stderr of what is checked here; inside, it does not."""
    from diffusers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with quietly():
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def class_of(role: str, folder: Path) -> str:
    """The class that a component's own configuration names. Raises ConfigError E280, E283."""
    if role == "tokenizer":
        config = settings(folder / "tokenizer_config.json")
        name = config.get("tokenizer_class")
    else:
        config = settings(folder / "config.json")
        name = config.get("_class_name") or next(iter(config.get("architectures") or ()), None)
    if name == "CLIPModel" and role in ("text_encoder", "image_encoder"):
        name = "CLIPTextModel" if role == "text_encoder" else "CLIPVisionModel"
    return accepted(role, name, folder)


def accepted(role: str, name: Any, where: Path) -> str:
    """The name of a class, if it is one of those that are known for the role. Raises ConfigError E283."""
    if isinstance(name, str) and name in known()[role]:
        return name
    raise ConfigError(
        "E283",
        f"{where} names the class {name!r} for its {role}, and Retake loads only classes that it knows",
        f"Known: {', '.join(known()[role])}. Code that comes with weights is never run.",
    )


def check_index(folder: Path) -> None:
    """Look through model_index.json, where there is one: classes of the roles that are known here must be known too.

    Raises ConfigError E280 for one that cannot be read, E283 for a pipeline or component of its own.
    """
    file = folder / "model_index.json"
    if not file.is_file():
        return
    index = settings(file)
    if not isinstance(index.get("_class_name"), str):
        raise ConfigError(
            "E283", f"{file} names a pipeline of its own: {index.get('_class_name')!r}", "Retake runs no such code."
        )
    for role in known():
        library, name = entry if isinstance(entry := index.get(role), list) and len(entry) == 2 else (None, None)
        if name is not None and known()[role][accepted(role, name, file)] != library:
            raise ConfigError("E283", f"{file} takes {name} from {library!r}", "Retake runs no code of a repository.")


def safe(folder: Path) -> str | None:
    """The variant ("fp16") in which the weights lie as safetensors, None for the plain one. Raises ConfigError E282
    where only a pickle lies there, E281 where nothing does."""
    files = [file.name for file in sorted(folder.iterdir()) if file.is_file()]
    found = [name for name in files if name.endswith(".safetensors")]
    if any(".fp16." not in name for name in found):
        return None
    if found:
        return "fp16"
    if pickles := [name for name in files if name.endswith(PICKLES)]:
        raise pickled(folder / pickles[0])
    raise ConfigError("E281", f"{folder} holds no weights", "Give a folder that diffusers saved, or fetch it again.")


def tensors(path: Path, what: str) -> tuple[dict[str, Tensor], Path]:
    """Tensors of a safetensors file, or of the only one in a folder, and that file.

    Raises ConfigError E282 for a pickle, E289 for a damaged file, E281 for a folder with none or several.
    """
    from safetensors.torch import load_file

    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if not found and (pickles := [file for file in sorted(path.glob("*")) if file.suffix in PICKLES]):
            raise pickled(pickles[0])
        if len(found) != 1:
            some = ", ".join(file.name for file in found[:4]) or "none"
            raise ConfigError("E281", f"{path} should hold one .safetensors file of {what}: {some}", "Name the file.")
        path = found[0]
    if path.suffix != ".safetensors":
        raise pickled(path)
    try:
        return load_file(path), path
    except Exception as error:  # the reader raises whatever the bytes lead it to
        raise misfit(path, str(error)) from error


def settings(file: Path) -> dict[str, Any]:
    """A JSON object. Raises ConfigError E280 where there is none to read."""
    try:
        found = json.loads(read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            "E280", f"{file.parent} is not in diffusers' format: {file.name}: {error}", "Give a folder that is."
        ) from error
    if not isinstance(found, dict):
        raise ConfigError("E280", f"{file} holds no settings", "Give a folder that diffusers saved.")
    return found


def pickled(file: Path) -> ConfigError:
    """The error for weights that can run code when they are read."""
    return ConfigError(
        "E282",
        f"{file} is not safetensors: a pickle can run code, and Retake loads none for diffusion models",
        "Convert it where you trust it: load it with diffusers and save_pretrained(..., safe_serialization=True).",
    )


def misfit(path: Path, why: str) -> ConfigError:
    """The error for weights that are there and do not fit."""
    return ConfigError(
        "E289", f"{path} does not load: {why[:300]}", "Fetch or save it again, or give that of the right model."
    )
