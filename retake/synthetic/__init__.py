"""Clips of textured sprites whose optical flow, occlusion, order, masks and tracks are known exactly."""

from retake.synthetic.motion import Pose
from retake.synthetic.pictures import PICTURES, reference_image
from retake.synthetic.scene import Scene, Sprite
from retake.synthetic.scenes import SCENES, TRAVELS, VERSION, scene
from retake.synthetic.world import World

__all__ = [
    "PICTURES",
    "SCENES",
    "TRAVELS",
    "VERSION",
    "Pose",
    "Scene",
    "Sprite",
    "World",
    "reference_image",
    "scene",
]
