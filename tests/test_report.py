"""The report: its pictures against ground truth, and what its page says."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.reports import HOSTILE, NAMES, TILE, made, mosaics, near, report, tile

from flows.editing.result_folder import scores_of
from flows.graph import STAGES
from flows.runners import Local
from retake.artifact import KINDS, Artifact, File
from retake.errors import ConfigError
from retake.formats import chunk_name, pack, pack_bits
from retake.report import contact_sheet as sheet
from retake.report import edit_page, layers, metric_rows
from retake.store import Store
from retake.video import decode
from tasks import report as report_stage

# --- pictures ---------------------------------------------------------------------------------------------


def test_a_mask_tints_what_it_covers_and_nothing_else() -> None:
    rgb = np.full((40, 60, 3), 100, np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    picture = layers.overlay_mask(rgb, mask, colour=(200, 0, 0), opacity=0.5)
    assert picture[20, 35].tolist() == [150, 50, 50]
    assert picture[10, 20].tolist() == list(layers.OUTLINE)
    assert (picture[~mask] == 100).all()
    assert (rgb == 100).all()
    with pytest.raises(ValueError, match="does not fit"):
        layers.overlay_mask(rgb, mask[:-1])


def test_every_object_has_its_colour_and_its_id() -> None:
    rgb = np.full((180, 320, 3), 100, np.uint8)
    masks = {k: np.zeros((180, 320), bool) for k in (1, 2, 30)}
    masks[1][40:140, 20:120] = True
    masks[2][60:120, 200:260] = True
    picture = layers.overlay_objects(rgb, masks)
    for k, (x, y) in {1: (30, 60), 2: (210, 70)}.items():
        tinted = [round(100 * 0.55 + c * 0.45) for c in layers.id_colour(k)]
        assert np.abs(picture[y, x].astype(int) - tinted).max() <= 1
    for k, box in {1: np.s_[75:106, 55:86], 2: np.s_[75:106, 215:246]}.items():  # about the middle of each
        assert (picture[box] == 0).all(axis=-1).any()  # the plate
        assert (picture[box] == layers.id_colour(k)).all(axis=-1).any()  # the number on it
    outside = ~(masks[1] | masks[2])
    assert (picture[outside] == 100).all()  # id 30 is not to be seen: nothing is written
    assert (rgb == 100).all()
    alone = layers.overlay_objects(rgb, {7: masks[1]})
    assert np.array_equal(alone, layers.overlay_mask(rgb, masks[1]))


def test_a_label_hides_no_small_object_and_stays_in_the_picture() -> None:
    mask = np.zeros((100, 200), bool)
    mask[50:56, 90:96] = True
    x, y = layers.label_position(mask, 14)
    assert 90 <= x < 96
    assert y == 50 - 14
    rgb = np.full((100, 200, 3), 100, np.uint8)
    corner = np.zeros((100, 200), bool)
    corner[:4, 195:] = True
    picture = layers.overlay_objects(rgb, {1: mask, 2: corner})
    seen = (picture[50:56, 90:96] != 0).any(axis=-1)
    assert seen.all()  # no plate on the small object
    for k in (1, 2):
        assert (picture == layers.id_colour(k)).all(axis=-1).any()


def test_depth_colours_brighten_with_nearness_at_one_scale() -> None:
    ramp = np.linspace(0, 8, 64, dtype=np.float32)[None].repeat(8, axis=0)
    colours = layers.depth_image(ramp, 8.0)
    lightness = cv2.cvtColor(colours, cv2.COLOR_RGB2LAB)[0, :, 0].astype(int)
    assert (np.diff(lightness) >= 0).all()
    assert lightness[0] < 10
    assert lightness[-1] > 240
    steps = np.diff(lightness[4:-4])
    assert steps.max() <= 3 * max(1, np.median(steps))  # evenly: no edge where the depth has none
    assert np.array_equal(layers.depth_image(ramp / 2, 4.0), colours)
    assert np.array_equal(layers.depth_image(ramp, 4.0)[:, -1], colours[:, -1])  # cut to the brightest
    ramp[3, 5], ramp[4, 5] = np.nan, np.inf
    assert layers.depth_image(ramp, 8.0)[3:5, 5].tolist() == [[128] * 3] * 2
    assert (layers.depth_image(np.zeros((4, 4), np.float32), 0.0) == layers.depth_bar()[0, 0]).all()
    assert np.array_equal(layers.depth_bar(64, 8)[0, [0, -1]], colours[0, [0, -1]])


def test_a_few_wild_values_do_not_darken_the_depth() -> None:
    depth = np.random.default_rng(0).uniform(0, 2, (90, 160)).astype(np.float32)
    depth[:2, :20] = 1000
    depth[5, 5] = np.nan
    assert 1.9 < layers.depth_peak(depth) < 2.1
    assert layers.depth_peak(np.full((4, 4), np.nan, np.float32)) == 0


def test_flow_colours_are_torchvisions_at_one_scale() -> None:
    import torch
    from torchvision.utils import flow_to_image

    flow = np.random.default_rng(0).normal(0, 3, (24, 32, 2)).astype(np.float32)
    peak = float(np.hypot(flow[..., 0], flow[..., 1]).max())
    expected = flow_to_image(torch.from_numpy(flow.transpose(2, 0, 1).copy())).numpy().transpose(1, 2, 0)
    assert np.abs(layers.flow_image(flow, peak).astype(int) - expected).max() <= 1
    # A quarter of the motion at the same scale is paler; torchvision alone would paint both alike.
    assert layers.flow_image(flow / 4, peak).mean() > layers.flow_image(flow, peak).mean() + 20
    assert (layers.flow_image(np.zeros((4, 4, 2), np.float32), peak) == 255).all()
    longer = np.full((4, 4, 2), (50.0, 0), np.float32)
    assert np.array_equal(layers.flow_image(longer, 10), layers.flow_image(longer / 5, 10))
    flow[3, 4, 0] = np.nan
    assert layers.flow_image(flow, peak)[3, 4].tolist() == [0, 0, 0]
    assert np.isfinite(layers.flow_peak(flow))


def test_tracks_are_drawn_where_the_points_are() -> None:
    rgb = np.zeros((60, 80, 3), np.uint8)
    trail = np.array([[[10, 10], [60, 40]], [[30, 10], [60, 50]]], np.float32)
    visible = np.array([[True, False], [True, False]])
    picture = layers.draw_tracks(rgb, trail, visible, [3, 4])
    assert picture[10, 30].tolist() == list(layers.id_colour(3))
    assert picture[10, 20].any()  # the path
    assert not picture[50, 60].any()  # hidden now: a ring, and no path
    assert picture[47:54, 57:64].any()
    assert not picture[45, 60].any()
    assert not rgb.any()
    trail[1, 0] = np.nan
    assert not layers.draw_tracks(rgb, trail, visible, [3, 4])[:20].any()
    with pytest.raises(ValueError, match="do not fit"):
        layers.draw_tracks(rgb, trail, visible, [1])


def test_points_scale_about_half_pixel_centres() -> None:
    corners = np.array([[-0.5, -0.5], [0, 0], [99.5, 49.5]])
    assert layers.scale_points(corners, (0.5, 2)).tolist() == [[-0.5, -0.5], [-0.25, 0.5], [49.5, 99.5]]


def test_a_mosaic_gives_every_tile_back() -> None:
    frame = next(mosaics())
    assert frame.shape == (192, 384, 3)
    for index, name in enumerate(NAMES):
        assert np.array_equal(layers.tile_view(frame, index, TILE, 3), tile(name, 0))
    missing = layers.mosaic([tile("source", 1), None], TILE, 2)
    assert (layers.tile_view(missing, 1, TILE, 2) == layers.BACKDROP).all()
    assert layers.tile_size(1280, 720) == (640, 360)
    assert layers.tile_size(720, 1280) == (360, 640)
    assert layers.tile_size(64, 64) == (64, 64)


def test_a_contact_sheet_shows_first_last_and_evenly_between(tmp_path: Path) -> None:
    assert sheet.sample_indices(72, 6) == [0, 14, 28, 43, 57, 71]
    assert sheet.sample_indices(3, 6) == [0, 1, 2]
    views = ([np.full((48, 64, 3), 10 * n, np.uint8), np.full((48, 64, 3), 255, np.uint8)] for n in range(20))
    image = sheet.contact_sheet(views, 20, ("source", "résultat 中\n"), columns=3, thumb=64, title="dog" * 200)
    written = cv2.imdecode(np.frombuffer(sheet.png(image), np.uint8), cv2.IMREAD_COLOR)
    assert written is not None
    assert np.array_equal(written[..., ::-1], image)
    for level in (0, 100, 190):  # frames 0, 10, 19 (rounded to even)
        assert (image == level).all(axis=-1).sum() >= 48 * 64 * 0.99


# --- the stage --------------------------------------------------------------------------------------------


def stored(store: Store, kind: str, count: int, meta: dict, **files: dict) -> Artifact:
    """An artifact of one chunk in the store."""
    named = {chunk_name(0): files.pop("chunk"), **{f"{name}.safetensors": tensors for name, tensors in files.items()}}
    made_files = [store.put(name, pack(tensors)) for name, tensors in named.items()]
    return KINDS[kind](tuple(made_files), {"count": count, "width": 128, "height": 96, **meta})


def priors(store: Store, region: bool) -> dict[str, Artifact]:
    """Six frames of grey, two objects (left and right), a depth that rises from left to right and with time, and a
    region that is their union, or reaches further on the last frame only."""
    rgb = np.full((6, 96, 128, 3), 100, np.uint8)
    objects = np.zeros((6, 2, 96, 128), bool)
    objects[:, 0, 16:80, 8:56], objects[:, 1, 16:80, 72:120] = True, True
    area = np.bitwise_or.reduce(objects, axis=1)
    area[5, 0, 0] = region
    depth = (np.arange(128) / 127 * np.arange(1, 7)[:, None, None]).repeat(96, axis=1).astype(np.float16)
    seconds = {"seconds": np.arange(6) / 24}
    meta = {"fps": 24.0, "source_width": 128, "source_height": 96}
    return {
        "frames": stored(store, "frames", 6, meta, chunk={"rgb": rgb}, times=seconds),
        "masks": stored(store, "masks", 6, {}, chunk={"ids": np.array([3, 5]), "objects": pack_bits(objects)}),
        "region": stored(store, "region", 6, {}, chunk={"mask": pack_bits(area)}),
        "depth": stored(store, "depth", 6, {}, chunk={"depth": depth}),
    }


@pytest.mark.parametrize("wider", [True, False])
def test_the_stage_draws_depth_objects_and_a_region_of_its_own(wider: bool, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    params = report_stage.Params(tile=128, crf=4, columns=6)
    made_report: Artifact = Local(store)(STAGES["report"], params, implementation="", **priors(store, wider))  # type: ignore[arg-type]
    names = made_report.meta["layers"]
    assert names == ["source", "mask", *(["region"] if wider else []), "depth"]
    assert "depth.png" in made_report
    store.copy_out(made_report["layers.mp4"], tmp_path / "layers.mp4")
    shown = [frame for _, frame in decode(tmp_path / "layers.mp4")]
    assert len(shown) == 6
    tiles = {name: [layers.tile_view(f, i, (128, 96), 2) for f in shown] for i, name in enumerate(names)}
    for x, identity in ((14, 3), (114, 5)):
        tint = [round(100 * 0.55 + c * 0.45) for c in layers.id_colour(identity)]
        assert near(tiles["mask"][4][22, x].tolist(), (tint[0], tint[1], tint[2]))
    light = [[int(cv2.cvtColor(t, cv2.COLOR_RGB2GRAY)[48, x]) for x in (4, 64, 122)] for t in tiles["depth"]]
    assert all(left < middle < right for left, middle, right in light)
    assert all(now[2] < then[2] for now, then in pairwise(light))  # one scale for the clip
    brightest = layers.depth_image(np.full((1, 1), 122 / 127, np.float32), 1.0)[0, 0].tolist()
    assert near(tiles["depth"][5][48, 122].tolist(), tuple(brightest))
    if wider:
        tint = [round(100 * 0.55 + c * 0.45) for c in layers.REGION_COLOUR]
        assert near(tiles["region"][5][48, 24].tolist(), (tint[0], tint[1], tint[2]))


# --- metrics on the page ----------------------------------------------------------------------------------


def test_a_value_stands_beside_its_sources() -> None:
    for name, expected in {
        "flicker_source": ("flicker", "source"),
        "flicker_source_edit": ("flicker_edit", "source"),
        "flicker_edit_delta": ("flicker_edit", "delta"),
        "warp_error_full": ("warp_error_full", ""),
        "source_count": ("source_count", ""),
    }.items():
        assert metric_rows.companion(name) == expected
    values = ("flicker", "flicker_source", "flicker_delta", "flicker_edit", "delta_of_nothing_delta")
    metrics = [edit_page.Metric(name, float(k), group="flicker") for k, name in enumerate(values)]
    curves: dict[str, object] = {name: [] for name in ("flicker", "flicker_source", "flicker_edit", "alone")}
    first, last = metric_rows.groups(metrics, curves)
    rows = first.rows
    assert [(row.prefix, row.short) for row in rows] == [
        ("", "flicker"), ("flicker_", "edit"), ("", "delta_of_nothing_delta"),
    ]  # fmt: skip
    assert (rows[0].source, rows[0].delta) == (metrics[1], metrics[2])
    assert (rows[0].curve, rows[0].floor) == ("flicker", "flicker_source")
    assert (rows[1].source, rows[1].curve, rows[1].floor) == (None, "flicker_edit", "")
    assert [row.metric.name for row in last.rows] == ["alone"]
    shown = [row.metric for row in rows] + [m for row in rows for m in (row.source, row.delta) if m]
    assert sorted(m.name for m in shown) == sorted(values)  # nothing is lost


def test_one_reason_for_a_whole_metric_is_said_once() -> None:
    why = "unavailable: needs clip_vit_b_32 (605 MB, MIT), get it with: retake weights clip_vit_b_32"
    absent = [edit_page.Metric(name, None, group="tc", reason=why) for name in ("tc_full", "tc_edit")]
    mixed = [
        edit_page.Metric("s_full", 0.5, group="s", network="CLIP a"),
        edit_page.Metric("s_edit", None, group="s", network="CLIP b", reason="withheld: it stands still"),
        edit_page.Metric("s_rest", None, group="s", network="CLIP b"),
    ]
    one, other = metric_rows.groups([*absent, *mixed], {})
    assert (one.reason, other.reason) == (why, "")
    assert (one.network, other.network) == ("", "")
    assert [row.state for row in other.rows[1:]] == ["withheld", "none"]
    text = edit_page.render(report(metrics=(*absent, *mixed), curves={}), "x.mp4")
    assert text.count("retake weights clip_vit_b_32") == 1
    assert "it stands still" in text
    assert text.count("by CLIP") == 3
    shown = re.findall(r'<p class="value[^>]*>([^<]*)', text)
    assert shown == ["0.5", "withheld", "none"]  # never a number where there is none


def test_what_the_metrics_artifact_says_reaches_the_page(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    values = {"flicker": 0.9, "flicker_source": 0.95, "psnr_unedited": None, "of_another_day": 1.0}
    files: tuple[File, ...] = (
        store.put("metrics.json", json.dumps(values).encode()),
        store.put("metrics.tsv", b"frame\tflicker\n0\t0.9\n1\t\n"),
    )
    meta = {
        "names": ["region", "flicker"],
        "networks": {"flicker": "a net"},
        "reasons": {"psnr_unedited": "unavailable: why"},
    }
    rows, curves = scores_of(store, KINDS["metrics"](files, meta))
    groups = {row.name: (row.group, row.network, row.reason, row.higher_is_better) for row in rows}
    assert groups == {
        "psnr_unedited": ("region", "", "unavailable: why", True),
        "flicker": ("flicker", "a net", "", True),
        "flicker_source": ("flicker", "", "", True),
        "of_another_day": ("", "", "", None),
    }
    assert next(iter(groups)) == "psnr_unedited"  # in the order of the metrics asked for
    assert curves == {"flicker": [0.9, None]}


# --- the page as bytes ------------------------------------------------------------------------------------


def test_equal_input_gives_an_equal_page(tmp_path: Path) -> None:
    first = made(tmp_path / "a", report(), mosaics())
    again = made(tmp_path / "b", report(), mosaics())
    assert first.name == "report.html"
    assert first.read_bytes() == again.read_bytes()
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["contact_sheet.png", "report.html"]


def test_the_page_states_stages_recipe_versions_and_notices() -> None:
    text = edit_page.render(report(command="retake edit dog.mp4"), "mosaic.mp4")
    for words in (
        "embedded stand-in",
        "cached",
        "2.50 s",
        "1 min 15 s",
        "4.2 MB",
        "ab" * 32,
        "edit.<wbr>band",
        "0.1.0",
    ):
        assert words in text
    assert "ran 1 min 15 s · reused 2.50 s" in text
    assert "full colour = 12.5 px" in text
    assert 'href="./result.mp4"' in text


def test_changed_settings_stand_on_top_and_the_others_in_a_fold() -> None:
    text = edit_page.render(report(changed=frozenset({"edit.band"})), "mosaic.mp4")
    before, fold = text.split("2 settings as they are by default")
    assert "edit.<wbr>band" in before
    assert "edit.<wbr>seed" not in before
    assert "edit.<wbr>seed" in fold
    assert "by default" not in edit_page.render(report(), "mosaic.mp4")


def test_a_page_of_a_dataset_leads_to_its_video_and_back() -> None:
    video = edit_page.Link("the result", "../../../decode/a/b/result.mp4")
    text = edit_page.render(report(elsewhere=(video,), gallery="../../../index.html"), "mosaic.mp4")
    assert '<a href="./../../../decode/a/b/result.mp4">the result</a>' in text
    assert '<a href="./../../../index.html">' in text


def test_the_data_in_the_page_is_plain_json_without_markup() -> None:
    text = edit_page.render(report(layers=("source", HOSTILE, "c", "d", "e")), "mosaic.mp4")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found is not None
    assert not re.search("[<>&\u2028]", found[1])
    data = json.loads(found[1])
    assert data["layers"][1] == HOSTILE
    assert data["curves"]["warp_error"][0] is None
    assert data["curves"]["warp_error"][-1] is None  # NaN is no JSON


@pytest.mark.parametrize(
    "changes",
    [
        {"fps": 0.0},
        {"frames": 0},
        {"layers": ()},
        {"tile_size": (127, 96)},
        {"timestamps": (0.0,)},
        {"layers": ("a", "a")},
    ],
)
def test_data_that_no_page_can_show_is_refused(changes: dict, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        made(tmp_path, report(**changes), mosaics())
    assert refusal.value.code == "E270"


@pytest.mark.parametrize(
    "href", ["javascript:alert(1)", "/etc/passwd", "../x", "//host/x", "http://host/x", "a\\b", ""]
)
def test_a_link_stays_in_the_folder(href: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        made(tmp_path, report(links=(edit_page.Link("x", href),)), mosaics())
    assert refusal.value.code == "E271"
