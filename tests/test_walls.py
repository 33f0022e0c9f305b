"""A sprite between elastic walls: straight at one pace, but for the walls."""

from __future__ import annotations

import numpy as np

from retake.synthetic import detector, walls
from retake.synthetic.clips import Limits, render

LIMITS = Limits(frames=17)


def test_nothing_but_the_walls_changes_how_it_moves():
    turned = 0
    for seed in range(40):
        sprite = walls.draw(seed, LIMITS).scene.sprites[0]
        places = np.array([(pose.x, pose.y) for pose in sprite.poses])
        assert len(places) == LIMITS.frames
        assert places.min() >= sprite.radius
        assert places.max() <= LIMITS.size - 1 - sprite.radius
        steps = np.diff(places, axis=0)
        near = np.minimum(places, LIMITS.size - 1 - places).min(1) - sprite.radius < np.abs(steps).max() + 1e-6
        change = np.abs(np.diff(steps, axis=0)).max(1)
        turned += bool((change > 1e-6).any())
        assert (change[~near[1:-1]] < 1e-6).all()
        free = steps[:-1][change < 1e-6]
        np.testing.assert_allclose(np.hypot(*free.T), np.hypot(*free[0]))
    assert turned > 25  # or the walls would not be met


def test_what_is_told_is_seen():
    hues = shapes = 0
    for seed in range(12):
        drawn = walls.draw(seed, LIMITS)
        seen = detector.read(render(drawn.scene))
        hues += seen.hue == drawn.subject.hue
        shapes += seen.shape == drawn.subject.shape
    assert (hues, shapes) >= (12, 10)
    assert drawn.caption.startswith("a ")
    assert "moving" not in drawn.caption
