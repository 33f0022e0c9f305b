"""ModelScope and ZeroScope: text to video in one 3-D U-Net."""

NETWORK = "unet"
CLASSES = {
    "unet": ("UNet3DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
SETTINGS = ()
