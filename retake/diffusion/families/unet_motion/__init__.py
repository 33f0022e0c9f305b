"""AnimateDiff: an image model whose U-Net was given motion modules."""

NETWORK = "unet"
CLASSES = {
    "unet": ("UNetMotionModel", "UNet2DConditionModel"),
    "motion_adapter": ("MotionAdapter",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "image_encoder": ("CLIPVisionModel", "CLIPVisionModelWithProjection"),
}
SETTINGS = ("motion", "image_adapter")
