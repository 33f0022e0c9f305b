"""CLIP: embeddings of images and texts in one space.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021, in transformers'
CLIPModel, with the processor that lies beside the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from retake.machine.device import device_of
from retake.networks.checkpoint import display_name, load_local, load_pretrained, wrong_weights
from retake.weights.local import require

if TYPE_CHECKING:
    import torch

Preparation = Literal["processor", "vbench"]
WITH_TOKENIZER = "a folder of CLIP with its tokenizer"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def load(reference: str, device: str = "auto", preparation: Preparation = "processor") -> Clip:
    """CLIP from local weights: a catalogue name, a folder, or org/repo that is in the hub's cache.

    preparation: "processor" resizes as the model's own processor does (bicubic, antialiased, centre crop); "vbench" as
    VBench does (the same without antialiasing, rounded to levels). Raises MachineError E302 when the weights are
    missing, E304 when the device is, ConfigError E262 when they are not CLIP's.
    """
    path = require(reference)
    return Clip(path, display_name(reference, path), device_of(device), preparation)


class Clip:
    """Image and text encoder. `name` gives the weights, and the preprocessing if it is not the model's own."""

    def __init__(self, path: Path, label: str, device: torch.device, preparation: Preparation = "processor") -> None:
        from transformers import CLIPImageProcessor, CLIPModel

        self.name = f"CLIP {label}" + (", prepared as VBench does" if preparation == "vbench" else "")
        self.path, self.device, self.preparation = path, device, preparation
        self.model: Any = load_pretrained(CLIPModel, path, "a folder of CLIP").to(device)
        self.processor: Any = None
        if preparation == "processor":
            self.processor = load_local(CLIPImageProcessor, path, "a folder of CLIP with its processor")
        self._tokenizer: Any = None

    def images(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Projected embeddings, not normalised: uint8 RGB [B, H, W, 3] -> float32 [B, D]."""
        import torch

        with torch.inference_mode():
            found = self.model.get_image_features(pixel_values=self._prepared(frames).to(self.device))
        return found.pooler_output.float().cpu().numpy()

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Projected embeddings, not normalised: B texts -> float32 [B, D]. Longer texts are truncated.

        Raises ConfigError E262 when the folder has no tokenizer.
        """
        import torch

        if self._tokenizer is None:
            self._tokenizer = self._read_tokenizer()
        longest = self.model.config.text_config.max_position_embeddings
        words = self._tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt").to(
            self.device
        )
        with torch.inference_mode():
            found = self.model.get_text_features(input_ids=words["input_ids"], attention_mask=words["attention_mask"])
        return found.pooler_output.float().cpu().numpy()

    def _read_tokenizer(self) -> Any:
        from transformers import CLIPTokenizer

        if not any((self.path / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            # transformers would go on with a vocabulary of three tokens, and every text would read the same
            raise wrong_weights(self.path, WITH_TOKENIZER, "tokenizer.json and vocab.json are missing")
        return load_local(CLIPTokenizer, self.path, WITH_TOKENIZER)

    def _prepared(self, frames: NDArray[np.uint8]) -> Any:
        import torch

        if self.processor is not None:
            done = self.processor(images=list(frames), return_tensors="pt", input_data_format="channels_last")
            return done["pixel_values"]
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as shape

        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        side = self.model.config.vision_config.image_size
        pixels = shape.resize(pixels, [side], InterpolationMode.BICUBIC, antialias=False)
        pixels = shape.center_crop(pixels, [side, side]).float() / 255
        return shape.normalize(pixels, list(MEAN), list(STD))
