"""CASS, our definition, and the edited region as a picture."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers.known_networks import Grid
from helpers.scored import H, W, box, pictures, run

from retake.metrics import (
    cass,
)
from retake.metrics.common.crop import BLANK, box_of, square, tight, whole
from retake.metrics.common.sample import NO_REGION
from retake.networks import clip
from retake.video import write_png

# CASS, our definition


def scored(params: cass.Params, result, source, inside=None, network=None):
    return run(cass.Metric(params, clip=network or Grid()), result, source, inside)


@pytest.fixture
def red(tmp_path) -> str:
    """A reference picture that is red."""
    write_png(tmp_path / "red.png", np.full((9, 9, 3), (255, 0, 0), np.uint8))
    return str(tmp_path / "red.png")


def test_cass_follows_its_formula_on_vectors_of_a_clip_asked_apart(clip_folder, tmp_path):
    import torch
    from transformers import CLIPModel, CLIPProcessor

    source, result, picture = pictures(3), 255 - pictures(3) // 2, pictures(1, 32, 32, seed=2)[0]
    write_png(tmp_path / "reference.png", picture)
    model, processor = CLIPModel.from_pretrained(clip_folder), CLIPProcessor.from_pretrained(clip_folder)

    def embedded(frames):
        inputs = processor(
            text=["a b"], images=list(frames), return_tensors="pt", padding=True, input_data_format="channels_last"
        )
        with torch.inference_mode():
            found = model(**inputs)  # of unit length already
        return found.image_embeds.double().numpy(), found.text_embeds.double().numpy()[0]

    (seen, words), (before, _), (wanted, _) = embedded(result), embedded(source), embedded(picture[None])
    image, text = 100 * (seen - before) @ wanted[0], 100 * (seen - before) @ words
    own = 100 * np.mean(before @ wanted[0] + before @ words)
    reference = str(tmp_path / "reference.png")
    params = cass.Params(reference=reference, source_prompt="a b", weights=str(clip_folder), device="cpu")
    metric = cass.Metric(params, **cass.networks(params))
    found = run(metric, result, source)
    assert found.per_frame()["cass_image"] == pytest.approx(dict(enumerate(image)), abs=1e-3)
    assert found.per_frame()["cass_text"] == pytest.approx(dict(enumerate(text)), abs=1e-3)
    expected = {"cass_image": image.mean(), "cass_text": text.mean(), "cass": (image - text).mean()}
    assert abs(expected["cass"]) > 0.1
    assert found.summary() == pytest.approx(expected | {"relcass": expected["cass"] / own}, abs=1e-3)
    assert set(found.summary()) == set(cass.DESCRIPTIONS) == set(metric.networks())
    assert set(metric.networks().values()) == {f"CLIP {clip_folder.name}"}


def test_the_reference_in_the_frames_raises_cass_and_no_edit_leaves_it_at_zero(clip_folder, tmp_path):
    source, picture, inside = list(pictures(3)), pictures(1, 20, 20, seed=2)[0], box(20, 10, 40, 30)
    write_png(tmp_path / "reference.png", picture)
    placed = [frame.copy() for frame in source]
    for frame in placed:
        frame[10:30, 20:40] = picture
    network, found = clip.load(str(clip_folder), "cpu"), {}
    for where in ("frame", "edit"):
        params = cass.Params(reference=str(tmp_path / "reference.png"), source_prompt="a b", where=where)
        for name, result in (("copy", source), ("placed", placed)):
            found[where, name] = scored(params, result, source, inside, network).summary()
        nothing = {"cass": 0, "cass_image": 0, "cass_text": 0}
        assert {name: found[where, "copy"][name] for name in nothing} == pytest.approx(nothing, abs=1e-3)
        assert found[where, "placed"]["cass_image"] > 0.1
    assert found["edit", "placed"]["cass_image"] > found["frame", "placed"]["cass_image"]  # nothing else is in sight


def test_relcass_divides_by_what_the_source_had_if_there_is_anything(red):
    colours = {name: np.full((H, W, 3), level, np.uint8) for name, level in Grid.colours.items()}
    params = cass.Params(reference=red, source_prompt="green")
    # centred colours: cosine 1 with itself, -1/3 with another one
    values = scored(params, [colours["red"]] * 2, [colours["green"]] * 2).summary()
    expected = {"cass_image": 400 / 3, "cass_text": -400 / 3, "cass": 800 / 3, "relcass": (800 / 3) / (200 / 3)}
    assert values == pytest.approx(expected, abs=1e-4)
    # the source is like neither: -1/3 - 1/3
    found = scored(params, [colours["red"]] * 2, [colours["blue"]] * 2)
    assert found.summary()["cass"] == pytest.approx(400 / 3, abs=1e-4)
    assert math.isnan(found.summary()["relcass"])
    assert found.reasons() == {
        "relcass": "the source's own likeness to reference and words is -66.67: nothing to divide by"
    }
    # a ratio of means, so one frame whose own likeness is below zero does no harm
    mixed = scored(params, [colours["red"]] * 3, [colours["green"]] * 2 + [colours["blue"]]).summary()
    assert mixed["relcass"] == pytest.approx(mixed["cass"] / ((200 / 3 * 2 - 200 / 3) / 3), rel=1e-5)


def test_cass_says_what_it_was_not_given(red):
    frames, inside = pictures(2), box(5, 5, 30, 30)

    def reasons(network=None, inside=None, **settings):
        return run(cass.Metric(cass.Params(**settings), clip=network), frames, inside=inside).reasons()

    nothing = reasons()
    assert set(nothing) == set(cass.DESCRIPTIONS)
    assert nothing["cass_image"] == cass.NO_REFERENCE
    assert nothing["cass_text"] == cass.NO_PROMPT
    assert nothing["cass"] == nothing["relcass"] == f"{cass.NO_REFERENCE}; {cass.NO_PROMPT}"
    without = {"cass", "relcass"}
    assert reasons(Grid(), source_prompt="red") == dict.fromkeys({*without, "cass_image"}, cass.NO_REFERENCE)
    assert reasons(Grid(), reference=red) == dict.fromkeys({*without, "cass_text"}, cass.NO_PROMPT)
    both = {"reference": red, "source_prompt": "red"}
    assert reasons(Grid(), where="edit", **both) == dict.fromkeys(cass.DESCRIPTIONS, NO_REGION)
    assert not {"cass", "cass_image", "cass_text"} & set(reasons(Grid(), inside, where="edit", **both))


def test_every_value_of_cass_says_that_it_is_our_definition():
    assert all("our definition" in text for text, _ in cass.DESCRIPTIONS.values())


# The edited region as a picture


def test_squares_are_centred_blanked_and_padded():
    frame = pictures(1)[0]
    region = box(50, 0, 56, 10)  # at the corner: 6 x 10, so the square reaches 2 px out on the right
    region[0, 50] = False
    picture = square(frame, region)
    assert picture is not None
    assert picture.shape == (10, 10, 3)
    assert (picture[1:, 2:8] == frame[1:10, 50:56]).all()
    assert (picture[:, :2] == BLANK).all()
    assert (picture[:, 8:] == BLANK).all()
    assert (picture[0, 2] == BLANK).all()
    seen = square(frame, region, blank=False)
    assert seen is not None
    assert (seen[:, :8] == frame[:10, 48:56]).all()
    assert (seen[:, 8:] == BLANK).all()
    cut = tight(frame, region)
    assert cut is not None
    assert (cut == frame[:10, 50:56]).all()
    assert box_of(region) == (50, 0, 56, 10)
    nothing = np.zeros_like(region)
    assert box_of(nothing) is square(frame, nothing) is square(frame, None) is tight(frame, None) is None


def test_a_reference_of_any_shape_is_shown_whole_on_the_blank_colour():
    picture = np.zeros((4, 8, 4), np.uint8)
    picture[..., :3], picture[:, :4, 3] = 200, 255
    shown = whole(picture)
    assert shown.shape == (8, 8, 3)
    assert (shown[2:6, :4] == 200).all()
    assert (shown[2:6, 4:] == BLANK).all()
    assert (shown[:2] == BLANK).all()
