"""A name in the settings is a module: `lookup("priors.optical_flow", "dis")` is retake/priors/optical_flow/dis.py.

There is no registry to edit: a new file is a new choice.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from retake.errors import ConfigError, did_you_mean


def names(package: str) -> list[str]:
    """The choices that exist in `retake.<package>`: its modules that state a VERSION, by file name."""
    home = importlib.import_module(f"retake.{package}")
    return sorted(m.name for m in pkgutil.iter_modules(home.__path__) if hasattr(_load(package, m.name), "VERSION"))


def lookup(package: str, name: str) -> ModuleType:
    """The module of a name. Raises ConfigError E206, listing the names that exist."""
    home = importlib.import_module(f"retake.{package}")
    if name.isidentifier() and any(m.name == name for m in pkgutil.iter_modules(home.__path__)):
        module = _load(package, name)
        if hasattr(module, "VERSION"):
            return module
    place = "retake/" + package.replace(".", "/")
    raise ConfigError("E206", f"there is no {name!r} in {place}/", did_you_mean(name, names(package)))


def _load(package: str, name: str) -> ModuleType:
    return importlib.import_module(f"retake.{package}.{name}")
