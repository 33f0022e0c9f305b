"""What a plan says a stage will take: time and disk as before, memory and operations as computed."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from helpers.command import Shell, reference, sprite_clip

from flows import graph
from flows.planning.forecast import Extent, Forecast, extent_before, forecast, of_model
from flows.planning.table import format_duration, format_flops, table
from flows.runners import Chosen, Plan, Planned, recipe_of
from flows.settings.compose import settings
from retake.artifact import Edited, File
from retake.clip import open_clip
from retake.diffusion.cost import predict
from retake.errors import ConfigError
from retake.store import Record, Store


def call(words: list[str], stage: str = "edit"):
    p = settings(words)
    if stage in ("latents", "inversion", "motion_channels"):
        return graph.modelled(getattr(p, stage), p.model)
    return graph.method(p) if stage == "edit" else {"params": getattr(p, stage)}


def published(store: Store, stage: str, words: list[str], seconds: float, frames: int, size: int, **meta: int) -> None:
    """A record as a run of that stage would leave it."""
    how = call(words, stage)
    chosen = Chosen(how.get("implementation", ""), how.get("weights", {}))
    recipe = recipe_of(store, graph.STAGES[stage], how["params"], chosen, {}, lacking=True)
    artifact = Edited((File("a", "0" * 64, "0" * 32, size),), {"count": frames, **meta})
    store.publish(Record(recipe.key, recipe.ingredients(), artifact, seconds, {}))


def forecast_of(store: Store, stage: str, words: list[str], frames: int, **size: int) -> Forecast:
    how = call(words, stage)
    chosen = Chosen(how.get("implementation", ""), how.get("weights", {}))
    recipe = recipe_of(store, graph.STAGES[stage], how["params"], chosen, {}, lacking=True)
    return forecast(store, recipe, how["params"], Extent(frames, **size))


def test_time_and_disk_grow_with_frames(tmp_path):
    store = Store(tmp_path)
    published(store, "edit", ["edit.strength=0.5"], 8.0, 32, 1000)
    assert forecast_of(store, "edit", ["edit.strength=0.9"], 64) == Forecast(16.0, 2000)


def test_nothing_is_guessed(tmp_path):
    store = Store(tmp_path)
    assert forecast_of(store, "edit", [], 64) == Forecast()
    published(store, "edit", ["edit=sdedit", "edit.prompt=a"], 8.0, 32, 1000)
    assert forecast_of(store, "edit", [], 64).seconds is None  # another method says nothing of this one


def test_the_most_similar_result_counts(tmp_path):
    store = Store(tmp_path)
    published(store, "edit", ["edit.strength=0.5", "edit.feather=9"], 100.0, 32, 1)
    published(store, "edit", ["edit.strength=0.5"], 8.0, 32, 1)
    published(store, "edit", ["edit.strength=0.1", "edit.grow=3"], 50.0, 32, 1)
    assert forecast_of(store, "edit", ["edit.strength=0.6"], 32).seconds == 8.0


def test_one_run_on_a_busy_machine_does_not_set_the_time(tmp_path):
    store = Store(tmp_path)
    for n, seconds in enumerate((99.0, 98.0, 8.2, 8.0, 8.4, 900.0, 8.1)):
        published(store, "edit", [f"edit.strength=0.{n + 1}"], seconds, 32, 1)
        (record,) = [path for path in (store.root / "records" / "edit").iterdir() if path.stat().st_mtime > 100]
        os.utime(record, (n, n))
    assert forecast_of(store, "edit", ["edit.strength=0.9"], 32).seconds == 8.2  # of the latest five


def test_an_inversion_of_half_the_steps_takes_half_the_time_and_disk(tmp_path):
    store = Store(tmp_path)
    published(store, "inversion", ["inversion.steps=50"], 60.0, 16, 1000)
    half = forecast_of(store, "inversion", ["inversion.steps=25"], 16)
    assert (half.seconds, half.bytes) == (30.0, 500)
    cheap = ["edit=sdedit", "edit.prompt=a", "edit.source=noise"]
    published(store, "edit", [*cheap, "edit.steps=50"], 60.0, 16, 1000)
    edit = forecast_of(store, "edit", [*cheap, "edit.steps=25"], 16)
    assert (edit.seconds, edit.bytes) == (30.0, 1000)


def test_a_weaker_edit_makes_fewer_steps(tmp_path):
    store, words = Store(tmp_path), ["edit=sdedit", "edit.prompt=a"]
    published(store, "edit", [*words, "edit.strength=0.8"], 40.0, 16, 1)
    assert forecast_of(store, "edit", [*words, "edit.strength=0.4"], 16).seconds == 20.0


def test_another_size_of_model_says_nothing(tmp_path):
    store = Store(tmp_path)
    published(store, "inversion", ["model=animatediff"], 60.0, 16, 1)
    assert forecast_of(store, "inversion", ["model=animatediff", "model.height=256"], 16).seconds is None
    assert forecast_of(store, "inversion", ["model=cogvideox_2b"], 16).seconds is None


def test_memory_and_operations_come_from_the_real_configuration(tmp_path):
    store = Store(tmp_path)
    words = ["edit=sdedit", "edit.prompt=a", "edit.source=noise", "model=animatediff"]
    one = forecast_of(store, "edit", words, 16)
    assert one.seconds is None
    # 35 steps of 50 with guidance, 17.7 TFLOP a frame-window (tests/test_cost.py), and the decoder.
    assert one.flops == pytest.approx(70 * 17.75e12 + 40.2e12, rel=0.01)
    assert one.memory is not None
    assert 2 << 30 < one.memory < 8 << 30
    three = forecast_of(store, "edit", words, 48)
    assert three.flops is not None
    assert 3.9 * one.flops < three.flops < 4 * one.flops  # four windows that share frames
    assert forecast_of(store, "edit", [*words, "edit.strength=0.35"], 16).flops < 0.55 * one.flops
    latents = forecast_of(store, "latents", ["model=animatediff"], 16)
    assert latents.flops == pytest.approx(17.9e12, rel=0.01)


def test_frames_are_counted_before_they_are_decoded(tmp_path):
    clip = open_clip(str(sprite_clip(tmp_path / "clip.mp4", frames=20)))
    whole = extent_before(clip, settings(["frames.short_side=48"]).frames)
    assert whole.frames == 20
    assert whole.source == 4 * whole.working
    assert extent_before(clip, settings(["frames.first=4", "frames.last=9"]).frames).frames == 6
    with pytest.raises(ConfigError, match="E211"):
        extent_before(clip, settings(["frames.start=99"]).frames)


def test_a_plan_goes_by_what_ran_before(tmp_path):
    shell, clip = Shell(tmp_path), sprite_clip(tmp_path / "clip.mp4", frames=18)
    words = (clip, "--until", "optical_flow")
    first, flow, _ = shell("plan", *words, "--json").data["stages"]
    assert flow["why"] == "depends on frames"  # it was never made: there is nothing to reuse
    assert first["forecast"] == {"seconds": None, "bytes": None, "memory": None, "flops": None}
    shell("edit", *words)
    again, flow, page = shell("plan", *words, "frames.last=8", "--json").data["stages"]
    assert page["why"].endswith("; reused if these come out unchanged")
    assert flow["why"] == "depends on frames; reused if that comes out unchanged"
    took = shell("plan", *words, "--json").data["stages"][0]
    assert again["status"] == "will run"
    assert again["forecast"]["seconds"] == pytest.approx(took["seconds"] / 2, rel=0.01)
    assert "about" in shell("plan", *words, "frames.last=8").out


def test_a_plan_says_what_to_fetch_and_goes_on(tmp_path, monkeypatch):
    for name in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    run = Plan(Store(tmp_path / "store"))
    p = settings(["edit=sdedit", "edit.prompt=a", "model=animatediff", "masks.box=[1,1,60,60]"])
    graph.edit_graph(run, open_clip("sprites:drift"), p)
    lacking = {one.stage for one in run.planned if one.lacks}
    assert lacking == {"latents", "inversion", "edit"}
    text = "\n".join(table(run.planned))
    assert "retake weights stable_diffusion_v1_5 animatediff_v1_5_2" in text
    assert text.count("4265 MB") == 1
    assert "GiB on the device" in text


def test_a_plan_for_people():
    ran = Planned("frames", "cached", "", "k", 4.2, 12_000_000)
    will = Planned(
        "edit", "will run", "edit.strength: 1 -> 2", "k", forecast=Forecast(200, 10**6, 6 << 30, 44 * 10**15)
    )
    may = replace(will, stage="decode", status="may run", forecast=Forecast())
    lines = list(table([ran, will, may]))
    assert lines[0] == "frames          cached    saves 4.2 s, 12.0 MB"
    assert lines[1].startswith(
        "edit            will run  about 3.3 min, up to 44 PFLOP, at most 6.0 GiB on the device; edit."
    )
    assert lines[3].startswith(
        "in all          at least 3.3 min and 1.0 MB on disk (not run here yet: decode), up to 44 PF"
    )
    assert list(table([will]))[1].startswith("in all          about 3.3 min, 1.0 MB on disk, up to")
    assert list(table([may]))[1] == "in all          time not known (none of these stages has run here yet)"
    assert list(table([ran])) == lines[:1]
    twice = [replace(will, stage="correction")] * 2  # a stage of which there are several
    assert list(table(twice))[2].startswith("in all          about 6.7 min, 2.0 MB on disk, up to 88 PF")
    assert "here yet: decode)" in list(table([will, may, may]))[3]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "about 0.0 s"), (80, "about 80.0 s"), (100, "about 1.7 min"), (7200, "about 2.0 h")]
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("flops", "text"), [(5e8, "0.5 GFLOP"), (3.2e12, "3.2 TFLOP"), (2e21, "2e+03 EFLOP")])
def test_operations(flops, text):
    assert format_flops(int(flops)) == text


def test_work_of_a_model_is_counted_and_of_a_method_that_does_not_say_is_not_guessed():
    assert of_model("edit", call(["model=animatediff", "edit=sdedit", "edit.prompt=a"])["params"], 64, 50) is not None
    assert of_model("edit", call([])["params"], 64, 50) is None


@pytest.fixture(scope="module")
def backbone():
    from retake.diffusion.loading.load import load

    return load(settings(["model=embedded"]).model)


@pytest.mark.parametrize(
    "words",
    [
        ["edit.diagonal=true"],
        ["edit.diagonal=false"],
        ["edit.preset=paper"],
        ["edit.lookahead=0"],
        ["edit.enter=300", "edit.steps=40"],
    ],
)
def test_a_queue_is_asked_at_most_as_often_as_planned(words, backbone):
    """Against what diagonal denoising itself counts, on the very schedule."""
    from retake.diffusion.sampling.fifo import Diagonal
    from retake.diffusion.sampling.windows import Windows
    from retake.methods.moca import asked, levels_below, numbers
    from retake.methods.moca.presets import rule_of

    params = call(["model=embedded", "edit=moca", "edit.reference_text=a", *words])["params"]
    own = params.settings
    steps, (_, ahead, guidance, by_queue) = own.steps or 64, asked(own, 50, backbone.length, 100)
    enter = rule_of(own.preset, numbers(own)).enter
    diagonal = Diagonal.of(backbone, steps, levels_below(backbone, steps, enter), ahead)
    for frames in (16, 100):
        planned = of_model("edit", params, frames, 50)
        truly = diagonal.evaluations(frames, guided=guidance != 1)
        if not by_queue:
            spans = Windows(frames, backbone.length, ahead).spans
            truly = 2 * diagonal.levels * sum(map(len, spans))
        assert truly <= planned.evaluations * backbone.length <= 2.5 * truly


def test_time_and_disk_grow_with_the_size_of_a_frame(tmp_path):
    store, big, small = Store(tmp_path), 640 * 480, 320 * 240
    published(store, "masks", [], 8.0, 32, 1000, width=320, height=240)
    assert forecast_of(store, "masks", [], 32, source=big, working=big) == Forecast(32.0, 4000)
    assert forecast_of(store, "masks", [], 32, source=big, working=small) == Forecast(8.0, 1000)
    assert forecast_of(store, "masks", [], 32) == Forecast(8.0, 1000)  # of a size that is not known
    # A result is as large as its source, whatever the stages before it worked at.
    published(store, "decode", [], 2.0, 32, 500, width=320, height=240)
    assert forecast_of(store, "decode", [], 32, source=big, working=small).seconds == 8.0


def test_results_of_the_same_size_count_before_others(tmp_path):
    store, size = Store(tmp_path), 320 * 240
    for n in range(5):  # large frames took disproportionately long here
        published(store, "edit", [f"edit.feather={5 + n}"], 3.0 + n, 32, 1, width=320, height=240)
        published(store, "edit", [f"edit.feather={15 + n}"], 400.0, 32, 1, width=1280, height=960)
    assert forecast_of(store, "edit", [], 32, working=size).seconds == 5.0
    assert forecast_of(store, "edit", [], 32, working=16 * size).seconds == 400.0


def test_a_model_works_at_its_own_size(tmp_path):
    store = Store(tmp_path)
    words = ["edit=sdedit", "edit.prompt=a"]
    published(store, "edit", words, 8.0, 32, 1000, width=320, height=240)
    assert forecast_of(store, "edit", words, 32, source=1, working=4 * 320 * 240).seconds == 8.0


def test_metrics_know_the_size_of_their_frames(tmp_path):
    shell = Shell(tmp_path)
    small, large = sprite_clip(tmp_path / "small.mp4", 6), sprite_clip(tmp_path / "large.mp4", 6, (320, 192))
    words = ("--box", "20,20,80,80", f"edit.reference={reference(tmp_path / 'ball.png')}")
    shell("edit", small, *words)
    took = {one["stage"]: one for one in shell("plan", small, *words, "--json").data["stages"]}
    likely = {one["stage"]: one for one in shell("plan", large, *words, "--json").data["stages"]}
    assert likely["metrics"]["forecast"]["seconds"] == pytest.approx(4 * took["metrics"]["seconds"], rel=0.05)
    assert likely["report"]["forecast"]["seconds"] == pytest.approx(took["report"]["seconds"], rel=0.05)


def test_results_without_frames_are_taken_as_they_are(tmp_path):
    store, how = Store(tmp_path), call([])
    recipe = recipe_of(store, graph.STAGES["edit"], how["params"], Chosen(how["implementation"]), {})
    store.publish(Record(recipe.key, recipe.ingredients(), Edited((), {}), 3.0, {}))
    assert forecast_of(store, "edit", [], 64).seconds == 3.0


@pytest.mark.parametrize("words", [["edit.source=noise", "edit.steps=20"], ["inversion.steps=20"]])
def test_a_plan_counts_the_gradients_of_steering(words):
    aim = "edit.targets=[{object: 1, direction: right}]"
    settled = ["model=animatediff", "edit=moft", aim, *words]
    steered, free = (
        of_model("edit", call([*settled, more])["params"], 16, 20) for more in ("edit.last=0.48", "edit.weight=0")
    )
    assert steered is not None
    assert free is not None
    cost = predict.table()["animatediff"].works
    gradients = 2 * (10 - 2) * cost["gradient"].flops  # two updates in steps 2 to 9 of 20
    # From noise the clip that is not steered is sampled over the same steps.
    beside = 2 * (10 - 2) * cost["evaluation"].flops if "edit.source=noise" in words else 0
    assert steered.flops - free.flops == gradients + beside
    channels = of_model("motion_channels", call(settled, "motion_channels")["params"], None, 20)
    assert channels is not None
    assert channels.evaluations == 5 * 4 * 6  # ways, scenes, five steps up and the reading
