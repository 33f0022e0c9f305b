"""CLIP for the sprite world: text and image towers and their tokenizer, in transformers' own classes.

Two are trained, apart in architecture, data and seed: one conditions the denoisers, the other (the judge) scores what
they make, so that no model scores itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from retake.synthetic import clips, grammar
from retake.synthetic.grammar import Subject
from retake.synthetic.world import World
from retake.training.autoencoder import tensor
from retake.training.pictures import Data

END = "</w>"  # of a word, as CLIP's tokenizer marks it
LENGTH = 16  # tokens of a caption, start and end included
WIDTH = 64  # of the states that denoisers read


@dataclass(frozen=True)
class Towers:
    """Sizes of both towers."""

    width: int
    layers: int
    patch: int
    projection: int = 64


CONDITIONER = Towers(width=WIDTH, layers=3, patch=16)
JUDGE = Towers(width=48, layers=4, patch=8)


def tokenizer() -> Any:
    """CLIPTokenizer in which every word of the grammar is one token, and any other is spelt in letters."""
    from transformers import CLIPTokenizer

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + END for letter in letters)]
    merges: Any = merges_of(grammar.vocabulary())
    tokens += [left + right for left, right in merges]
    vocabulary = {token: n for n, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)


def ids(words: Any, captions: Sequence[str]) -> Tensor:
    """Ids [N, L] of captions, filled up to the length L of their tokenizer."""
    return words(list(captions), padding="max_length", truncation=True, return_tensors="pt").input_ids


def merges_of(words: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, by rank, that make each word one token. A word is first put together by the merges of those
    before it, so that its own, which rank below them, cannot take a word of theirs apart."""
    merges: list[tuple[str, str]] = []
    for word in words:
        parts = [*word[:-1], word[-1] + END]
        while len(parts) > 1:
            pairs = list(pairwise(parts))
            known = [pair for pair in merges if pair in pairs]
            pair = known[0] if known else pairs[0]
            if not known:
                merges.append(pair)
            at = pairs.index(pair)
            parts[at : at + 2] = [pair[0] + pair[1]]
    return merges


def network(towers: Towers, vocabulary: int) -> Any:
    """CLIPModel over pictures of 64 pixels and captions of 16 tokens."""
    from transformers import CLIPConfig, CLIPModel

    shared = {
        "hidden_size": towers.width,
        "intermediate_size": 4 * towers.width,
        "num_hidden_layers": towers.layers,
        "num_attention_heads": 4,
        "projection_dim": towers.projection,
    }
    text = {**shared, "vocab_size": vocabulary, "max_position_embeddings": LENGTH}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {**shared, "image_size": 64, "patch_size": towers.patch}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=towers.projection))


def pictures(data: Data) -> tuple[NDArray[np.uint8], list[Subject]]:
    """Pictures [count, S, S, 3] and what is true of each: two in three are frames of clips, the others portraits, of
    which neither direction nor ground can be told."""
    made = np.empty((data.count, data.size, data.size, 3), np.uint8)
    subjects = []
    for n in range(data.count):
        rng = np.random.default_rng([data.seed, n, 14])
        scene, subject, _ = clips.draw(int(rng.integers(1 << 31)), clips.Limits(data.size))
        if rng.uniform() < 0.33:
            made[n] = clips.portrait(scene, size=data.size)
            subject = replace(subject, direction=None, ground="")
        else:
            made[n] = World(scene).frame(int(rng.integers(scene.frames)))
            if subject.direction == "resting":
                subject = replace(subject, direction=None)
        subjects.append(replace(subject, speed=""))  # no single picture tells speed
    return made, subjects


def loss(model: Any, words: Any, data: Data, device: str) -> Callable[[int], tuple[Tensor, dict[str, float]]]:
    """(step) -> contrastive loss (CLIP, Radford et al. 2021, fig. 3) in which every caption that is true of a picture
    is right, not just its own."""
    images, subjects = pictures(data)
    truths = codes(subjects)

    def of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([data.seed, step, 15])
        picked = rng.integers(0, data.count, data.batch)
        captions = [thinned(subjects[n], rng) for n in picked]
        tokens = words([str(s) for s in captions], padding="max_length", truncation=True, return_tensors="pt")
        out = model(input_ids=tokens.input_ids.to(device), pixel_values=tensor(images[picked], device))
        logits = out.logits_per_image
        right = torch.from_numpy(true_of(codes(captions), truths[picked])).T.to(device).float()
        a = -(right / right.sum(1, keepdim=True) * F.log_softmax(logits, 1)).sum(1).mean()
        b = -(right / right.sum(0, keepdim=True) * F.log_softmax(logits, 0)).sum(0).mean()
        found = right.gather(1, logits.argmax(1, keepdim=True)).mean()
        return (a + b) / 2, {"right": float(found)}

    return of


def thinned(subject: Subject, rng: np.random.Generator) -> Subject:
    """A subject of which some things are left unsaid."""
    keep = rng.uniform(size=3) < (0.7, 0.85, 0.5)
    return replace(
        subject,
        texture=subject.texture if keep[0] else "",
        direction=subject.direction if keep[1] else None,
        ground=subject.ground if keep[2] else "",
    )


def codes(subjects: Sequence[Subject]) -> NDArray[np.int64]:
    """Subjects as numbers [N, 5]: shape, hue, texture, direction, ground; 0 where nothing is said."""
    known = (grammar.SHAPES, tuple(grammar.HUES), grammar.TEXTURES, (*grammar.DIRECTIONS, "resting"), grammar.GROUNDS)
    place = [{"": 0, None: 0, **{word: n for n, word in enumerate(words, 1)}} for words in known]
    rows = [(s.shape, s.hue, s.texture, s.direction, s.ground) for s in subjects]
    return np.array([[where[word] for where, word in zip(place, row, strict=True)] for row in rows])


def true_of(said: NDArray[np.int64], true: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether all that each of N captions says holds of each of M subjects: bool [N, M], from their `codes`."""
    return ((said[:, None] == 0) | (said[:, None] == true[None])).all(-1)
