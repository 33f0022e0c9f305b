"""A name in the settings is a module: `lookup("priors.optical_flow", "dis")` is retake/priors/optical_flow/dis.py.

There is no registry to edit: a new file is a new choice.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from retake.errors import ConfigError, did_you_mean


def names(package: str, mark: str = "VERSION") -> list[str]:
    """The choices that exist in `retake.<package>`: modules that state a VERSION or another mark."""
    home = importlib.import_module(f"retake.{package}")
    return sorted(m.name for m in pkgutil.iter_modules(home.__path__) if hasattr(_load(package, m.name), mark))


def lookup(package: str, name: str, mark: str = "VERSION") -> ModuleType:
    """The module of a name. Raises ConfigError E206, listing the names that exist."""
    home = importlib.import_module(f"retake.{package}")
    if name.isidentifier() and any(m.name == name for m in pkgutil.iter_modules(home.__path__)):
        module = _load(package, name)
        if hasattr(module, mark):
            return module
    place = "retake/" + package.replace(".", "/")
    raise ConfigError("E206", f"there is no {name!r} in {place}/", did_you_mean(name, names(package, mark)))


def _load(package: str, name: str) -> ModuleType:
    return importlib.import_module(f"retake.{package}.{name}")
