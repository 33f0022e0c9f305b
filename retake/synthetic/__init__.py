"""Clips of textured sprites whose optical flow, occlusion, order, masks and tracks are known exactly."""

from retake.synthetic.grounds import GROUNDS, natural_image
from retake.synthetic.motion import Pose
from retake.synthetic.pairs import FAMILIES, Pair, pair
from retake.synthetic.pictures import PICTURES, reference_image
from retake.synthetic.scene import Scene, Sprite
from retake.synthetic.scenes import SCENES, TRAVELS, VERSION, scene
from retake.synthetic.world import World

__all__ = [
    "FAMILIES",
    "GROUNDS",
    "PICTURES",
    "SCENES",
    "TRAVELS",
    "VERSION",
    "Pair",
    "Pose",
    "Scene",
    "Sprite",
    "World",
    "natural_image",
    "pair",
    "reference_image",
    "scene",
]
