"""ModelScope and ZeroScope: text to video in one 3-D U-Net."""

from retake.diffusion.families.common import CLIP

NETWORK = "unet"
CLASSES = CLIP | {"unet": ("UNet3DConditionModel",)}
SETTINGS = ()
