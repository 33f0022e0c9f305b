"""Grounding DINO: boxes of objects named by text (Liu et al., "Grounding DINO: Marrying DINO with Grounded
Pre-Training for Open-Set Object Detection", ECCV 2024), through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retake.networks.checkpoint import load_local, load_pretrained

if TYPE_CHECKING:
    import torch

WHAT = "a folder of Grounding DINO"
OVERLAP = 0.5  # boxes that overlap by more (IoU) show one object


@dataclass(frozen=True)
class Detection:
    """A box (x0, y0, x1, y1) in pixels, inside the picture; its score, 0..1; the prompt's words for it, or ""."""

    box: tuple[float, float, float, float]
    score: float
    words: str


class GroundingDino:
    """The detector, in float32, from a local folder. Raises ConfigError E262 for another model, E263 if
    it needs its own code."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

        self.device = device
        self.model = load_pretrained(GroundingDinoForObjectDetection, folder, WHAT, use_safetensors=True).to(device)
        self.processor: Any = load_local(GroundingDinoProcessor, folder, f"{WHAT} with its processor")

    def detect(self, rgb: np.ndarray, text: str, word_score: float = 0.25) -> list[Detection]:
        """All detections in a picture (uint8 RGB [H, W, 3]) for the phrases of a text, highest score first; none is
        smaller than a pixel. A box is named by the words that score more than `word_score`."""
        import torch

        height, width = rgb.shape[:2]
        prompt = ". ".join(phrases(text)) + "."
        inputs = self.processor(images=rgb, text=prompt, return_tensors="pt", input_data_format="channels_last")
        inputs = inputs.to(self.device)
        with torch.inference_mode():
            outputs = self.model(**inputs)
        found = self.processor.post_process_grounded_object_detection(
            outputs, inputs["input_ids"], threshold=-1.0, text_threshold=word_score, target_sizes=[(height, width)]
        )[0]
        corners = found["boxes"].cpu().numpy().clip(0, [width, height, width, height]).tolist()
        detected = [
            Detection((x0, y0, x1, y1), score, self._words(label))
            for (x0, y0, x1, y1), score, label in zip(
                corners, found["scores"].tolist(), found["text_labels"], strict=True
            )
            if min(x1 - x0, y1 - y0) >= 1
        ]
        return sorted(detected, key=lambda one: -one.score)

    def _words(self, label: str) -> str:
        """A label decoded by transformers, without special tokens and full stops."""
        for mark in self.processor.tokenizer.all_special_tokens:
            label = label.replace(mark, " ")
        return ", ".join(phrases(label))


def select_detections(detected: Sequence[Detection], threshold: float, most: int) -> list[Detection]:
    """Named detections above `threshold` after non-maximum suppression (IoU `OVERLAP`): at most `most`, highest score
    first."""
    import torch
    from torchvision.ops import nms

    named = [one for one in detected if one.score > threshold and one.words]
    if not named:
        return []
    boxes = torch.tensor([one.box for one in named], dtype=torch.float32)
    kept = nms(boxes, torch.tensor([one.score for one in named]), OVERLAP)
    return [named[k] for k in kept.tolist()][:most]


def phrases(text: str) -> list[str]:
    """The phrases of a text, split at full stops and in lower case, as in training."""
    return [" ".join(part.split()) for part in text.lower().split(".") if part.strip()]
