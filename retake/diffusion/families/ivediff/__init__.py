"""IVEDiff: an image editing network (MimicBrush's) that was given motion modules and a motion reference network.

It fills a mask of every frame with what a picture shows, and reads no text (Li et al. 2025,
https://arxiv.org/abs/2501.04325).
"""

NETWORK = "unet"
CLASSES = {
    "vae": ("AutoencoderKL",),
    "image_encoder": ("CLIPVisionModel", "CLIPVisionModelWithProjection"),
    "unet": ("UNet2DConditionModel",),
    "reference_unet": ("UNet2DConditionModel",),
    "motion_adapter": ("MotionAdapter",),
}
SETTINGS = ("motion",)
METHODS = ("ivediff",)
