"""What both backends share: prompts in, masks out, frames forgotten, state packed."""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np

from retake.errors import ConfigError, RetakeError
from retake.machine.device import device_of, dtype_of
from retake.networks.checkpoint import wrong_weights
from retake.networks.grounding_dino import GroundingDino, select_detections
from retake.priors.masks.prompt import Box, Followed, Moment, Prompt
from retake.priors.masks.sam2.memory import POSITIONS, Output, Outputs, Reach, Tensors, at, later, pack

if TYPE_CHECKING:
    import torch

    from retake.priors.masks.sam2.params import Params

T = TypeVar("T")
_loaded: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()  # networks that a tracker still uses


class Follower(ABC):
    """A `Tracker` (see prompt.py) over a network that keeps `outputs` by object id.

    `overlap` of a mask is the network's probability that the object can be seen at all on that frame, 0..1. Masks of
    different objects may overlap. A lost object has an empty mask until the network finds it again.
    """

    positions: Any = None
    """The positional encoding of remembered features: one for all frames and objects."""
    t: int | None = None
    """The current frame; none before the first step of a tracker that goes on from a state."""

    def __init__(self, params: Params, size: tuple[int, int], paths: Mapping[str, Path], reverse: bool) -> None:
        self.params, self.size, self.paths, self.reverse = params, size, paths, reverse
        self.device, self.dtype = device_of(params.device), dtype_of(params.dtype)

    @property
    @abstractmethod
    def reach(self) -> Reach:
        """How far back frames read."""

    @property
    @abstractmethod
    def outputs(self) -> dict[int, Outputs]:
        """What is kept of each object, by id."""

    @abstractmethod
    def _prompt(self, moment: Moment, prompts: Mapping[int, Prompt]) -> None:
        """Outputs of the prompt frame."""

    @abstractmethod
    def _advance(self, moment: Moment) -> None:
        """Outputs of the next frame."""

    @abstractmethod
    def _correct(self, moment: Moment, object: int, prompt: Prompt) -> None:
        """The object's output on the current frame, made a conditioning one."""

    def begin(self, moment: Moment, prompts: Mapping[int, Prompt]) -> dict[int, Followed]:
        """Masks of the prompt frame, by id; with `text` the ids are those of the boxes that it finds.

        Raises ConfigError E220 when an object's mask is empty there, E226 when words find nothing, E224 when they find
        fewer objects than a correction names.
        """
        prompts = self._by_words(moment) if self.params.text is not None else prompts
        self._prompt(moment, {i: clipped(prompts[i], self.size) for i in sorted(prompts)})
        found = self._found(moment)
        for i, followed in found.items():
            if not followed.mask.any():
                raise ConfigError(
                    "E220",
                    f"SAM 2 sees no object {i} at its prompt on frame {moment.t}",
                    "Try another box or frame (`retake frame CLIP N` draws a grid), or add masks.points.",
                )
        return found

    def step(self, moment: Moment) -> dict[int, Followed]:
        """Masks of the next frame."""
        for outputs in self.outputs.values():
            outputs |= self._later(outputs)
        self._advance(moment)
        return self._found(moment)

    def correct(self, moment: Moment, object: int, prompt: Prompt) -> Followed:
        """The mask of one object on the frame that this tracker has just stepped to, refined by a box or points.

        The frame conditions all later ones from then on, as the prompt frame does. Raises ConfigError E224 for an
        object that is not followed.
        """
        self._require(object)
        self._correct(moment, object, clipped(prompt, self.size))
        return self._found(moment)[object]

    def state(self) -> Tensors:
        """What later frames read (memory.py). With SAM 2's own sizes: 0.52 MB for each conditioning frame and for each
        of the last six, and 1 kB for each of the last fifteen; 3.7 MB an object without corrections."""
        return pack({i: self._later(outputs) for i, outputs in self.outputs.items()}, self.reach)

    def _later(self, outputs: Outputs) -> Outputs:
        return outputs if self.t is None else later(outputs, self.t, self.reach)

    def _found(self, moment: Moment) -> dict[int, Followed]:
        import torch

        self.t = moment.t
        found = {}
        for i, outputs in self.outputs.items():
            output = at(outputs, moment.t)
            low, size = output["pred_masks"].float(), self.size[::-1]
            full = torch.nn.functional.interpolate(low, size, mode="bilinear", align_corners=False)
            score = float(output["object_score_logits"].float().sigmoid())
            found[i] = Followed((full[0, 0] > self.params.threshold).cpu().numpy(), score)
            self.positions = self._positions_of(output) if self.positions is None else self.positions
            output[POSITIONS] = self.positions
        return found

    def _positions_of(self, output: Output) -> Any:
        return output[POSITIONS]

    def _by_words(self, moment: Moment) -> dict[int, Prompt]:
        p = self.params
        detected = GroundingDino(self.paths["detector"], self.device).detect(moment.rgb, str(p.text), p.text_threshold)
        boxes = select_detections(detected, p.box_threshold, p.max_objects)
        if not boxes:
            best = max((one.score for one in detected), default=0.0)
            near = best <= p.box_threshold
            lower = f"masks.box_threshold={math.floor(best * 100) / 100:g}" if near else "masks.text_threshold"
            raise ConfigError(
                "E226",
                f"nothing on frame {moment.t} looks like {p.text!r}: the best score is {best:.3f}",
                f"Lower {lower}, or try other words, another frame (masks.frame=N), or a box.",
            )
        prompts = {i: Prompt(box=one.box, points=()) for i, one in enumerate(boxes, start=1)}
        if strange := [i for i in map(p.corrected, p.corrections) if i not in prompts]:
            raise _not_followed(strange[0], list(prompts))
        return prompts

    def _require(self, object: int) -> None:
        if object not in self.outputs:
            raise _not_followed(object, list(self.outputs))


def clipped(prompt: Prompt, size: tuple[int, int]) -> Prompt:
    """The prompt with its box cut to the frame."""
    if prompt.box is None:
        return prompt
    x0, y0, x1, y1 = prompt.box
    box: Box = (max(0.0, x0), max(0.0, y0), min(float(size[0]), x1), min(float(size[1]), y1))
    return Prompt(box=box, points=prompt.points)


def pixels(processor: Any, rgb: np.ndarray) -> torch.Tensor:
    """float32 [3, S, S] as transformers' processor makes it: bilinear with antialiasing, ImageNet mean and deviation.

    Both backends get these. The sam2 package has resampling of its own for JPEG folders (bicubic) and for MP4 files
    (the decoder's), and this one, within rounding, for single images.
    """
    return processor(images=rgb, input_data_format="channels_last", return_tensors="pt")["pixel_values"][0]


def shared(load: Callable[..., T], *key: Any) -> T:
    """`load(*key)`, or what it gave before while that is in use: both directions of time share one network."""
    if (network := _loaded.get((load, *key))) is None:
        network = _loaded[(load, *key)] = load(*key)
    return network


@contextlib.contextmanager
def fitting(path: Path, what: str) -> Iterator[None]:
    """Turn what libraries raise on strange weights, which may be anything, into ConfigError E262."""
    try:
        yield
    except RetakeError:
        raise
    except Exception as error:
        raise wrong_weights(path, what, str(error)) from error


def _not_followed(object: int, known: list[int]) -> ConfigError:
    return ConfigError(
        "E224",
        f"a correction names object {object}, which is not followed",
        f"Followed: {', '.join(map(str, known))}.",
    )
