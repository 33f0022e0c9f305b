"""Grounding DINO: boxes of things named in words (Liu et al., "Grounding DINO: Marrying DINO with Grounded
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
    """A box, px x0, y0, x1, y1 of the picture and inside it; how sure it is, 0..1; the words that name it, which may
    be none."""

    box: tuple[float, float, float, float]
    score: float
    words: str


class GroundingDino:
    """The detector, in float32, from a local folder. Raises ConfigError E262 when that holds something else, E263 when
    it wants code of its own to run."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

        self.device = device
        self.model = load_pretrained(GroundingDinoForObjectDetection, folder, WHAT, use_safetensors=True).to(device)
        self.processor: Any = load_local(GroundingDinoProcessor, folder, f"{WHAT} with its processor")

    def detect(self, rgb: np.ndarray, text: str, word_score: float = 0.25) -> list[Detection]:
        """Everything that the network proposes in a picture (uint8 RGB [H, W, 3]) for the phrases of a text, surest
        first, boxes of less than a pixel left out. A box is named by the words that score more than `word_score`."""
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
        """A label as transformers decodes it, without the marks of the text's ends and full stops."""
        for mark in self.processor.tokenizer.all_special_tokens:
            label = label.replace(mark, " ")
        return ", ".join(phrases(label))


def select_detections(detected: Sequence[Detection], threshold: float, most: int) -> list[Detection]:
    """Those that score more than `threshold` and are named by a word, one of each group of boxes that overlap
    (`OVERLAP`), at most `most`, surest first."""
    import torch
    from torchvision.ops import nms

    named = [one for one in detected if one.score > threshold and one.words]
    if not named:
        return []
    boxes = torch.tensor([one.box for one in named], dtype=torch.float32)
    kept = nms(boxes, torch.tensor([one.score for one in named]), OVERLAP)
    return [named[k] for k in kept.tolist()][:most]


def phrases(text: str) -> list[str]:
    """What is looked for, as the network was trained: lower case, parted by full stops."""
    return [" ".join(part.split()) for part in text.lower().split(".") if part.strip()]
