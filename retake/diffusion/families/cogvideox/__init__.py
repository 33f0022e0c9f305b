"""CogVideoX: a transformer over text and video in one sequence. Encoders are its own, or those of an image model."""

from retake.diffusion.families.common import CLIP

NETWORK = "transformer"
CLASSES = CLIP | {
    "transformer": ("CogVideoXTransformer3DModel",),
    "vae": ("AutoencoderKL", "AutoencoderKLCogVideoX"),
    "text_encoder": ("CLIPTextModel", "T5EncoderModel"),
    "tokenizer": (*CLIP["tokenizer"], "T5Tokenizer", "T5TokenizerFast"),
}
SETTINGS = ()
