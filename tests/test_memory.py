"""Memory that ends: the batch is halved once, what was committed is kept, and else it is said."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from helpers.command import CHECKOUT
from pydantic import BaseModel

from retake.diffusion.model import Model, Modelled
from retake.machine import memory

# A stage of three chunks, each of which needs 100 MiB for every frame of a batch, in a process that may have 250 more
# than it has now.
SCRIPT = """
import json, resource, sys
import numpy as np
from pydantic import BaseModel
from retake.errors import RetakeError
from retake.recipe import Recipe
from retake.stage import compute, stage
from retake.store import Store

class Params(BaseModel, frozen=True):
    batch: int = 1

seen = []

@stage("frames", version=1, makes="frames")
def hungry(work, params):
    seen.append(params.batch)
    for n in range(3):
        if n in work.done:
            continue
        seen.append(f"chunk {n}")
        if n:  # the first is a small one
            np.ones((params.batch, 100 << 20), np.uint8)
        work.commit(n, {"rgb": np.full((2, 4, 4, 3), n, np.uint8)})
    return work.finish(count=6)

root, batch = sys.argv[1], int(sys.argv[2])
import retake.formats, filelock, psutil
now = psutil.Process().memory_info()
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + (250 << 20),) * 2)
said = []
store = Store(root, said.append)
try:
    outcome = compute(store, hungry, Recipe("frames", 1), Params(batch=batch), {})
    print(json.dumps({"digest": outcome.artifact.digest, "seen": seen, "said": said}))
except RetakeError as error:
    print(json.dumps({"error": error.as_json(), "exit": error.exit_code, "seen": seen, "said": said}))
"""


def starved(store, batch: int) -> dict:
    words = [sys.executable, "-c", SCRIPT, str(store), str(batch)]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_where_memory_ends_the_batch_is_halved_once_and_the_result_is_the_same(tmp_path):
    small, large = starved(tmp_path / "small", 1), starved(tmp_path / "large", 4)
    assert small["seen"] == [1, "chunk 0", "chunk 1", "chunk 2"]
    assert small["said"] == []
    assert large["seen"] == [4, "chunk 0", "chunk 1", 2, "chunk 1", "chunk 2"]  # chunk 0 is kept
    assert large["said"] == ["frames: out of memory; once more with half the batch"]
    assert large["digest"] == small["digest"]


def test_where_half_is_still_too_much_it_is_said_and_what_was_done_is_kept(tmp_path):
    result = starved(tmp_path / "store", 16)
    assert (result["error"]["code"], result["exit"]) == ("E506", 5)
    assert "frames" in result["error"]["message"]
    assert "short_side" in result["error"]["hint"]
    assert result["seen"] == [16, "chunk 0", "chunk 1", 8, "chunk 1"]
    assert starved(tmp_path / "store", 2)["seen"] == [2, "chunk 1", "chunk 2"]


def test_what_torch_and_numpy_and_opencv_say_is_known():
    import cv2
    import numpy as np
    import torch

    with pytest.raises(RuntimeError) as on_cpu:
        torch.empty(1 << 50)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(1 << 58, np.uint8)
    of_opencv = cv2.error("OpenCV(5.0) Insufficient memory: Failed to allocate 9 bytes in function 'OutOfMemoryError'")
    for error in (on_cpu.value, of_numpy.value, of_opencv, torch.OutOfMemoryError("CUDA out of memory. Tried ...")):
        assert memory.is_out_of_memory(error)
    assert not memory.is_out_of_memory(ValueError("a batch of 3"))


def test_half_of_a_batch_wherever_it_stands():
    class Own(BaseModel, frozen=True):
        strength: float = 1.0

    given = Modelled(settings=Own(), model=Model(weights="embedded", family="unet_motion", batch=5))
    smaller = memory.with_half_batch(given)
    assert isinstance(smaller, Modelled)
    assert (smaller.model.batch, smaller.settings) == (2, given.settings)
    single = given.model_copy(update={"model": given.model.model_copy(update={"batch": 1})})
    assert memory.with_half_batch(single) is None
    assert memory.with_half_batch(Own()) is None
