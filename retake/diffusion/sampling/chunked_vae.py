"""Whole clips through an autoencoder, chunk by chunk: neither pixels nor latents of a clip are ever all in memory.

With one latent frame a frame, chunks know nothing of one another. A causal video autoencoder makes one latent frame of
the first frame and one of every `time` frames after it: latent frame k holds frames time * (k - 1) + 1 to time * k. A
chunk in the middle is then begun some latent frames early (`WARM`), and those are dropped: the first of them stands for
one frame instead of `time`, and the others have not seen enough of the past. Such an autoencoder works two latent
frames at a time and normalises over them: an even start and an odd count let its pairs fall as from the clip's start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from retake.diffusion.backbone import Backbone
from retake.diffusion.sampling.windows import Latents
from retake.formats import CHUNK

WARM = 12, 8  # latent frames, even: of encoding, of decoding


def latent_count(frames: int, time: int) -> int:
    """Latent frames of a clip; the last may stand for less than `time` frames."""
    return 1 + -(-(frames - 1) // time)


def encoded(backbone: Backbone, pixels: Callable[[range], Tensor], frames: int, first: int = 0) -> Iterator[Tensor]:
    """Latents float32 [n, C, h, w] on the CPU, one chunk of 16 latent frames after the other from chunk `first`.

    pixels: frames of a range as float32 [n, 3, H, W] in -1..1. A clip that does not fill its last latent frame is
    continued with its last frame.
    """
    time, count = backbone.time, latent_count(frames, backbone.time)
    for start in range(first * CHUNK, count, CHUNK):
        stop, early = min(start + CHUNK, count), max(0, start - WARM[0]) if time > 1 else start
        last = stop - 1 + (stop - 1 - early) % 2 if time > 1 and stop < count else stop - 1
        begin, end = time * early, time * last + 1
        clip = pixels(range(begin, min(end, frames)))
        if missing := end - begin - len(clip):
            clip = clip[[*range(len(clip)), *[-1] * missing]]
        yield backbone.encode(clip[None].to(backbone.device))[0, start - early : stop - early].float().cpu()


def decoded(backbone: Backbone, z: Latents, frames: int, first: int = 0) -> Iterator[Tensor]:
    """Pixels float32 [n, 3, H, W] in -1..1 on the CPU, one chunk of 16 frames after the other from chunk `first`."""
    time = backbone.time
    block = CHUNK * time  # frames at once: what is decoded early is a smaller share of more
    for begin in range(first * CHUNK // block * block, frames, block):
        end = min(begin + block, frames)
        low, high = -(-begin // time), -(-(end - 1) // time)
        early = max(0, low - WARM[1]) if time > 1 else low
        pixels = backbone.decode(z[early : high + 1][None].float().to(backbone.device))[0].float().cpu()
        for start in range(max(begin, first * CHUNK), end, CHUNK):
            yield pixels[start - time * early : min(start + CHUNK, end) - time * early]
