"""CogVideoX: a transformer over text and video in one sequence."""

NETWORK = "transformer"
CLASSES = {
    "transformer": ("CogVideoXTransformer3DModel",),
    "vae": ("AutoencoderKL", "AutoencoderKLCogVideoX"),
    "text_encoder": ("CLIPTextModel", "T5EncoderModel"),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast"),
    "image_encoder": ("CLIPVisionModel", "CLIPVisionModelWithProjection"),
}
SETTINGS = ()
