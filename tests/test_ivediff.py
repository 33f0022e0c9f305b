"""The method ivediff on a tiny editing network: what it leaves alone, what it reads, targets one after another, kills,
plans and refusals."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import small_diffusion as small
from helpers import small_ivediff as tiny
from helpers.command import reference
from helpers.stages import Calls, ProgressLog, StopAfter, run

from flows import graph
from flows.planning import table as planning
from flows.planning.forecast import of_model
from flows.runners import Plan
from flows.settings.compose import settings
from retake.clip import open_clip
from retake.diffusion.cost.predict import predicted, table
from retake.diffusion.loading.load import load
from retake.diffusion.model import Model, Modelled
from retake.errors import RetakeError
from retake.formats import open_series
from retake.imaging.composite import over, pasted
from retake.imaging.soft_mask import filled_box
from retake.methods import Inputs, ivediff
from retake.methods.ivediff.masked_clip import MaskedClip
from retake.store import Store
from retake.synthetic import scenes
from retake.synthetic.world import World
from retake.video import resize

COUNT = 10
CLIP = [f"frames.last={COUNT - 1}", "frames.short_side=48", "masks=given", "masks.own=true", "decode.preset=veryfast"]
QUICK = ["edit=ivediff", "edit.steps=4", "edit.guidance=2", "edit.overlap=3", "edit.grow=0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> dict[str, Path]:
    to = tmp_path_factory.mktemp("pictures")
    other = np.full((20, 30, 3), (40, 200, 90), np.uint8)
    cv2.imwrite(str(to / "green.png"), other)
    cv2.imwrite(str(to / "nothing.png"), np.zeros((20, 20, 4), np.uint8))
    return {"one": reference(to / "one.png"), "green": to / "green.png", "nothing": to / "nothing.png"}


@pytest.fixture(scope="module")
def edited(folder, pictures, tmp_path_factory):
    """Edit a clip of two objects with more settings; what earlier edits made is in the store."""
    root = tmp_path_factory.mktemp("edited") / "retake"
    model = {"family": "ivediff", **small.settings(folder)}
    words = [*CLIP, *QUICK, *(f"model.{name}={value}" for name, value in model.items())]

    def edit(*more: str, until: str = "edit", clip: str = "sprites:crowd") -> Calls:
        return run(root, clip, settings([*words, f"edit.reference={pictures['one']}", *more]), until)

    return edit


def patches(calls: Calls) -> list:
    series = open_series(calls.store, calls.made["edit"])
    return [series[t] for t in range(len(series))]


def laid(calls: Calls) -> np.ndarray:
    """Working frames with the edit, uint8 [T, H, W, 3]."""
    frames, found = open_series(calls.store, calls.made["frames"]), []
    for t, (box, rgb, alpha) in enumerate(patches(calls)):
        picture = frames[t].copy()
        if alpha.any():
            pasted(picture, tuple(box.tolist()), rgb, alpha)
        found.append(picture)
    return np.stack(found)


def test_beyond_the_edge_every_pixel_is_the_sources(edited):
    calls = edited(until="decode")
    world, result = World(scenes.scene("crowd")), open_series(calls.store, calls.made["decode"])
    meta = calls.made["frames"].meta
    scale = meta["source_height"] / meta["height"]
    for t in (0, COUNT - 1):
        source = world.frame(t)
        area = (world.surfaces(t) >= 0).astype(np.uint8)
        reach = int(np.ceil(4 * scale))
        near = cv2.dilate(area, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
        assert np.array_equal(result[t][~near], source[~near])
        assert (result[t][area > 0] != source[area > 0]).any(-1).mean() > 0.9


def test_the_application_says_mask_and_depth(edited):
    texture, change = edited(), edited("edit.application=object_modification")
    assert "depth" in texture.calls
    assert change.calls["edit"][3].keys() & {"depth"} == set()
    said = [calls.made["edit"].meta["notes"][0] for calls in (texture, change)]
    assert said == [
        "texture transfer: the object's mask, with depth",
        "object modification: a rectangle around it, without depth",
    ]
    areas = [(alpha > 127).sum() for _, _, alpha in patches(texture)]
    boxes = [(alpha > 127).sum() for _, _, alpha in patches(change)]
    assert all(box > area for box, area in zip(boxes, areas, strict=True))
    fine = edited("edit.application=object_modification", "edit.area=object")
    assert [(alpha > 127).sum() for _, _, alpha in patches(fine)] == areas
    assert not np.array_equal(laid(fine), laid(texture))  # depth is seen


def test_it_hears_picture_seed_guidance_and_flow(edited, pictures):
    made = laid(edited())
    for words in (
        [f"edit.reference={pictures['green']}"],
        ["edit.seed=1"],
        ["edit.guidance=1"],
        ["edit.ablation=frame_wise"],
        ["edit.ablation=no_reference_motion"],
        ["edit.ablation=shuffled_flow"],
    ):
        assert not np.array_equal(laid(edited(*words)), made), words
    assert np.array_equal(laid(edited()), made)


def test_flow_is_read_where_frames_see_it_alone(edited):
    inputs = [edited(f"edit.ablation={name}").calls["edit"][3] for name in ("none", "frame_wise", "shuffled_flow")]
    assert ["optical_flow" in one for one in inputs] == [True, False, True]


def test_the_clip_is_shown_black_where_it_is_masked_and_nowhere_else(edited, folder, tmp_path):
    calls = edited()
    backbone = load(Model(family="ivediff", **small.settings(folder)))
    opened = {name: open_series(calls.store, calls.made[name]) for name in ("region", "depth", "optical_flow")}
    latents, frames = (open_series(calls.store, calls.made[name]) for name in ("latents", "frames"))
    params = ivediff.Params(reference="x", grow=0)
    clip = MaskedClip(latents, backbone, opened, Inputs(frames, tmp_path), params.chain[-1], params)
    mask, masked = clip.reels["mask"][0:COUNT], clip.reels["masked"][0:COUNT]
    assert set(np.unique(mask.numpy())) == {0.0, 1.0}
    for t in (0, COUNT - 1):
        hides = resize(np.uint8(255) * (clip.alpha(t) > 0), (32, 32)) > 0
        shown = resize(frames[t], (32, 32))
        black = torch.from_numpy(np.where(hides[..., None], 0, shown)).movedim(-1, 0)[None, None].float() / 127.5 - 1
        assert torch.allclose(backbone.encode(black)[0, 0], masked[t], atol=1e-4)
        assert np.array_equal(mask[t, 0].numpy() > 0, hides[::4, ::4])  # the nearest pixel of a cell
    depth = open_series(calls.store, calls.made["depth"])
    assert clip.nearest == pytest.approx(max(depth[t].max() for t in range(COUNT)))


def masked_clip(calls: Calls, folder: Path, scratch: Path, params: ivediff.Params, **more: object) -> MaskedClip:
    """What the network would read of the last target of some settings."""
    backbone = load(Model(family="ivediff", **small.settings(folder)))
    names = ("region", "masks", "depth", "optical_flow")
    opened = {name: open_series(calls.store, calls.made[name]) for name in names if name in calls.made}
    latents, frames = (open_series(calls.store, calls.made[name]) for name in ("latents", "frames"))
    return MaskedClip(latents, backbone, {**opened, **more}, Inputs(frames, scratch), params.chain[-1], params)


def test_flow_is_told_in_cells_from_each_frame_to_the_one_before(edited, folder, tmp_path):
    calls = edited(clip="sprites:fast")
    flow = masked_clip(calls, folder, tmp_path, ivediff.Params(reference="x", grow=0)).reels["flow"][0:COUNT].numpy()
    optical_flow = open_series(calls.store, calls.made["optical_flow"])

    def cells(flow: np.ndarray) -> np.ndarray:
        """[H, W, 2] in pixels, as [2, 8, 8] in cells of four of the model's 32 pixels."""
        size = flow.shape[1::-1]
        small = cv2.resize(flow, (32, 32), interpolation=cv2.INTER_AREA) * [32 / size[0], 32 / size[1]]
        return small.reshape(8, 4, 8, 4, 2).mean((1, 3)).transpose(2, 0, 1) / 4

    assert not flow[0].any()
    for t in range(1, COUNT):
        assert np.abs(cells(optical_flow.backward(t - 1)) - flow[t]).max() < 0.02
    assert np.abs(cells(optical_flow.forward(3)) - flow[4]).max() > 0.1  # the other way it is another flow


def test_a_second_target_sees_what_the_first_has_made(edited, folder, tmp_path):
    calls = edited("edit.object_id=1")
    before = open_series(calls.store, calls.made["edit"])
    params = ivediff.Params(reference="x", object_id=1, also=[{"reference": "y", "object_id": 2}], grow=0)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    second = masked_clip(calls, folder, tmp_path / "a", params, before=before)
    alone = masked_clip(calls, folder, tmp_path / "b", params)
    for t, picture in enumerate(laid(calls)):
        hides = resize(np.uint8(255) * (second.alpha(t) > 0), (32, 32)) > 0
        black = torch.from_numpy(np.where(hides[..., None], 0, resize(picture, (32, 32)))).movedim(-1, 0)
        shown = second.backbone.encode(black[None, None].float() / 127.5 - 1)[0, 0]
        assert torch.allclose(shown, second.reels["masked"][t : t + 1][0], atol=1e-4)
        assert not torch.allclose(shown, alone.reels["masked"][t : t + 1][0], atol=1e-2)


def test_frames_without_the_object_stay_as_they_are(edited, tmp_path):
    world = World(scenes.scene("crowd"))

    def masks(name: str, shown: range) -> list[str]:
        for t in range(COUNT):
            there = world.mask(t, 0) if t in shown else np.zeros((world.height, world.width), bool)
            (tmp_path / name).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / name / f"{t:03d}.png"), np.uint8(255) * there)
        return ["masks.own=false", f"masks.path={tmp_path / name}"]

    calls = edited(*masks("some", range(3, 7)))
    source, made = open_series(calls.store, calls.made["frames"]), laid(calls)
    changed = [not np.array_equal(made[t], source[t]) for t in range(COUNT)]
    assert changed == [t in range(3, 7) for t in range(COUNT)]
    with pytest.raises(RetakeError) as caught:
        edited(*masks("none", range(0)))
    assert caught.value.code == "E233"
    assert "--until masks" in caught.value.hint


# ---- several targets -------------------------------------------------------------------------------------------------


def both(pictures, second: str = "green") -> list[str]:
    return ["edit.object_id=1", f"edit.also=[{{object_id: 2, reference: {pictures[second]}}}]"]


def test_targets_come_one_after_another_and_a_new_second_keeps_the_first(edited, pictures):
    one = edited("edit.object_id=1", clip="sprites:crowd")
    two = edited(*both(pictures), clip="sprites:crowd")
    assert [o.status for o in two.outcomes if o.stage == "edit"] == ["cached", "ran"]
    again = edited(*both(pictures, "one"), clip="sprites:crowd")
    assert [o.status for o in again.outcomes if o.stage == "edit"] == ["cached", "ran"]
    first, whole = laid(one), laid(two)
    world = World(scenes.scene("crowd"))
    for t in (0, COUNT - 1):
        second = resize(world.mask(t, 1).astype(np.uint8), first.shape[2:0:-1])
        near = cv2.dilate(second, np.ones((13, 13), np.uint8)) > 0
        assert np.array_equal(whole[t][~near], first[t][~near])  # the second touches its own object alone
        assert not np.array_equal(whole[t][second > 0], first[t][second > 0])


def test_layers_laid_over_one_another_are_one_layer():
    rng = np.random.default_rng(0)
    source = rng.integers(0, 256, (30, 40, 3)).astype(np.uint8)

    def layer(x0: int, y0: int, x1: int, y1: int) -> tuple:
        size = y1 - y0, x1 - x0
        return (x0, y0, x1, y1), rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 256, size, np.uint8)

    def pasted_on(*layers) -> np.ndarray:
        picture = source.copy()
        for box, rgb, alpha in layers:
            pasted(picture, box, rgb, alpha)
        return picture

    a, b, apart = layer(2, 3, 20, 22), layer(10, 8, 33, 29), layer(25, 1, 38, 20)
    one_by_one, at_once = pasted_on(a, b).astype(int), pasted_on(over(a, b)).astype(int)
    assert np.abs(one_by_one - at_once).max() <= 2
    assert np.array_equal(pasted_on(over(a, apart)), pasted_on(over(apart, a)))  # nothing shared: any order
    assert np.array_equal(pasted_on(over(a, apart)), pasted_on(apart, a))
    nothing = (0, 0, 0, 0), np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0), np.uint8)
    assert np.array_equal(pasted_on(over(nothing, a)), pasted_on(a))
    assert np.array_equal(pasted_on(over(a, nothing)), pasted_on(a))


# ---- long clips, kills, plans ---------------------------------------------------------------------------------------


def test_a_killed_edit_goes_on_with_its_denoising(edited):
    calls = edited("edit.seed=3", "edit.steps=20")
    whole = calls.made["edit"].digest
    for steps, first in ((6, 5), (10, 5), (19, 13)):
        calls.record("edit").unlink()
        with pytest.raises(KeyboardInterrupt):
            calls.again("edit", StopAfter(steps))
        seen = ProgressLog()
        assert calls.again("edit", seen).digest == whole
        assert seen.steps[0] == (first, 20)


def test_a_long_clip_goes_in_windows(edited):
    """In one step nothing passes from a window to frames that it does not hold: those of a longer clip."""
    one = ["edit.steps=1", "edit.application=object_modification"]  # depth would be told in shares of the clip's
    window = small.FRAMES
    two, three, more = (
        laid(edited(f"frames.last={n * window - 1}", f"edit.overlap={overlap}", *one))
        for n, overlap in ((2, 0), (3, 0), (3, 4))
    )
    assert np.array_equal(two, three[: 2 * window])
    assert not np.array_equal(three, more)  # where windows share frames, these are blended


def test_plans_count_its_evaluations(edited):
    model = settings(["model=embedded_ivediff"]).model
    params = ivediff.Params(reference="x")
    known, plain = (of_model("edit", Modelled(settings=params, model=model), n, 50) for n in (16, 24))
    assert known == predicted(model, "edit", 16, steps=50, guidance=2.0, overlap=8)
    assert plain.evaluations == 2 * known.evaluations
    real = table()["ivediff_sd15"]
    assert real.frames == 16
    assert real.weights("float16") / 2**30 == pytest.approx(5.3, abs=0.2)


def test_plans_say_which_application_of_which_target(pictures, tmp_path):
    also = f"edit.also=[{{reference: {pictures['green']}, application: object_modification}}]"
    words = [*CLIP, "model=embedded_ivediff", "edit=ivediff", f"edit.reference={pictures['one']}", also]
    plan = Plan(Store(tmp_path / "store"))
    graph.edit_graph(plan, open_clip("sprites:crowd"), settings(words))
    edits = [one for one in plan.planned if one.stage == "edit"]
    said = [
        "texture transfer: the object's mask, with depth; by a small model that knows sprites only",
        "texture transfer: the object's mask, with depth; then object modification: a rectangle around it, without "
        "depth; by a small model that knows sprites only",
    ]
    assert [one.as_json()["says"] for one in edits] == said
    lines = [line for line in planning.table(plan.planned) if line.startswith("edit ")]
    assert all(words in line for words, line in zip(said, lines, strict=True))


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["edit.reference=null"], "E230", "edit.reference=IMAGE"),
        (["edit.also=[{object_id: 2}]"], "E230", "edit.also[0].reference"),
        (["edit.reference=nowhere.png"], "E400", ""),
        (["edit.object_id=7"], "E248", "1, 2"),
        (["model.family=unet_motion"], "E273", "model=embedded_ivediff"),
        (["edit=sdedit", "edit.prompt=a"], "E273", "model=embedded"),
        (["frames.last=3", "edit.steps=0"], "E205", ""),
    ],
)
def test_what_cannot_work_is_refused(edited, words, code, hint):
    if words[0].startswith("edit=sdedit"):
        with pytest.raises(RetakeError) as caught:
            list(map(_raise, graph.config_errors(settings(["model=embedded_ivediff", *words]), {"latents", "edit"})))
    else:
        with pytest.raises(RetakeError) as caught:
            edited(*words)
    assert caught.value.code == code
    assert hint in caught.value.hint


def _raise(error: Exception) -> None:
    raise error


def test_a_picture_of_nothing_is_refused(edited, pictures):
    with pytest.raises(RetakeError) as caught:
        edited(f"edit.reference={pictures['nothing']}")
    assert caught.value.code == "E259"


def test_a_box_around_nothing_is_nothing():
    assert not filled_box(np.zeros((5, 5), bool)).any()
