"""The video transformer of the embedded models: a CogVideoX of small size, taught on fours of clips, its T5 with it.

Single latent frames of large plain sprites first, where shapes and hues are learnt for a fifth of a clip's price, then
the world as it is: the part `transformer_frames`. Then whole clips, in which the ways are: `transformer`. Positions are
rotary, as in CogVideoX-5B.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from retake.diffusion.families.cogvideox.transformer import evaluate, positions
from retake.synthetic import grammar
from retake.training.encoders import ids
from retake.training.fours import PLAIN, Kind
from retake.training.video_autoencoder import CHANNELS, FRAMES, LATENT, SIDE

LENGTH = 20  # tokens of a caption of two objects
WIDTH = 64  # of the text's states
HEADS, HEAD, LAYERS = 3, 64, 6

MOVING = {"shape": 0.3, "direction": 0.25, "speed": 0.25, "hue": 0.1, "texture": 0.1}
KINDS = {
    **PLAIN,
    "plain": replace(PLAIN["plain"], frames=None),
    "world": Kind(MOVING, 20_000_000),
    "upright_moving": Kind(
        {"shape": 0.5, "direction": 0.2, "speed": 0.15, "hue": 0.15}, 13_000_000, radius=(0.16, 0.24), turned=False
    ),
    "pair": Kind(MOVING, 30_000_000, paired=True),
    "counterfactual": Kind({}, 40_000_000, counterfactual=True),
}
TOLD = (0.1, 0.9, 0.0, 0.0)
"""As in unet.py; CogVideoX reads no picture."""


def network() -> Any:
    """CogVideoXTransformer3DModel of 3.6 M parameters over latent clips [B, 5, 16, 16, 16]."""
    from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel

    return CogVideoXTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=HEAD,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        time_embed_dim=64,
        text_embed_dim=WIDTH,
        num_layers=LAYERS,
        sample_width=SIDE,
        sample_height=SIDE,
        sample_frames=FRAMES,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=LENGTH,
        spatial_interpolation_scale=1.0,
        temporal_interpolation_scale=1.0,
        use_rotary_positional_embeddings=True,
    )


def text_tower() -> Any:
    """T5EncoderModel of 0.2 M parameters."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer()),
            d_model=WIDTH,
            d_kv=16,
            d_ff=256,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
        )
    )


def tokenizer() -> Any:
    """T5Tokenizer in which every word of the grammar is one piece, and any other is spelt in letters."""
    from transformers import T5Tokenizer

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -20.0)]
    pieces += [("\u2581" + word, -1.0) for word in (*grammar.vocabulary(), "and")]
    pieces += [(letter, -20.0) for letter in letters]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=LENGTH)


def tokenised(captions: Sequence[str]) -> Tensor:
    """Ids [N, 20] of captions."""
    return ids(tokenizer(), captions)


class Student(nn.Module):
    """The transformer and the text tower that learns with it."""

    def __init__(self, transformer: Any, text: Any) -> None:
        super().__init__()
        self.transformer: Any = transformer
        self.text: Any = text

    def forward(self, drawn: Mapping[str, Tensor]) -> Tensor:
        """v [B, f, C, h, w] of what `lessons.Teacher` draws; latent frames stand at their own places in the clip."""
        z = drawn["z"]
        whole = positions(self.transformer, LATENT, SIDE, SIDE, z.device)
        assert isinstance(whole, tuple), "the embedded transformer has rotary positions"
        cos, sin = (part.unflatten(0, (LATENT, -1))[drawn["at"]].flatten(0, 1) for part in whole)
        states = self.text(drawn["tokens"]).last_hidden_state
        return evaluate(self.transformer, z, drawn["t"][:, None].expand(z.shape[:2]), states, (cos, sin))
