"""AnimateDiff: an image model whose U-Net was given motion modules."""

from retake.diffusion.families.common import CLIP

NETWORK = "unet"
CLASSES = CLIP | {"unet": ("UNetMotionModel", "UNet2DConditionModel"), "motion_adapter": ("MotionAdapter",)}
SETTINGS = ("motion", "image_adapter")
