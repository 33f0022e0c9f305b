"""Diffusion models that stay loaded from one stage to the next, and from one clip of a dataset to the next.

One pool a process. It holds at most RETAKE_WARM GiB of weights (8; 0 holds nothing), the least recently used going
first: a model that is larger than that is loaded anew for every stage, as if there were no pool.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from retake.diffusion.model import Model, weights_of
from retake.recipe import digest
from retake.stage import file_identity
from retake.weights.local import require

if TYPE_CHECKING:
    from retake.diffusion.backbone import Backbone

GIB = 1 << 30
DEFAULT = 8.0

_kept: OrderedDict[str, tuple[Backbone, int]] = OrderedDict()
_one_at_a_time = threading.Lock()


def backbone_of(model: Model) -> Backbone:
    """The backbone of a model, loaded here or found loaded. Raises what retake/diffusion/loading/load.py raises."""
    from retake.diffusion.loading.load import load

    with _one_at_a_time:
        files = [file_identity(str(require(reference))) for reference in weights_of(model).values()]
        key = digest([model.model_dump(mode="json"), files])
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key][0]
        backbone: Any = load(model)  # every adapter has its `parts`; methods do not know of them
        _kept[key] = backbone, backbone.parts.bytes
        room = budget()
        while _kept and sum(size for _, size in _kept.values()) > room:
            _kept.popitem(last=False)
        return backbone


def budget() -> int:
    """Bytes that the pool may hold."""
    try:
        return round(float(os.environ.get("RETAKE_WARM", DEFAULT)) * GIB)
    except ValueError:
        return round(DEFAULT * GIB)


def cool() -> None:
    """Let go of every model."""
    with _one_at_a_time:
        _kept.clear()
