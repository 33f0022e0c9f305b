"""masks=sam2: objects found by words, what stands in the key, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sam2")

from helpers import small_sam2  # noqa: E402
from helpers.small_sam2 import META, PROMPTS, SIZE, as_package, frames, params, saved, small_model  # noqa: E402

from flows.graph import STAGES  # noqa: E402
from flows.runners import Chosen, recipe_of  # noqa: E402
from retake.errors import ConfigError, MachineError, RetakeError  # noqa: E402
from retake.networks.grounding_dino import Detection, GroundingDino, phrases, select_detections  # noqa: E402
from retake.priors.masks import sam2  # noqa: E402
from retake.priors.masks.prompt import Correction, Moment, Prompt  # noqa: E402
from retake.priors.masks.sam2 import package  # noqa: E402
from retake.store import Store  # noqa: E402
from retake.weights.catalogue import CATALOGUE  # noqa: E402


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("sam2"), small_model())


@pytest.fixture(scope="module")
def clip():
    return frames()


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return small_sam2.detector(tmp_path_factory.mktemp("detector"))


# ---- words --------------------------------------------------------------------------------------------------------


def test_words_find_the_objects_that_are_followed(small, detector, clip):
    p = params(small, "transformers", text="A red ball. dog", detector=str(detector), max_objects=2, box_threshold=0.2)
    sam2.check(p, META)
    assert sam2.weights(p) == {"sam2": str(small["transformers"]), "detector": str(detector)}
    tracker = sam2.tracker(p, SIZE, None, False)
    found = tracker.begin(Moment(3, clip[3]), {})
    assert sorted(found) == [1, 2]

    detected = GroundingDino(detector, tracker.device).detect(clip[3], "a red ball. dog.")
    assert [one.score for one in detected] == sorted((one.score for one in detected), reverse=True)
    words = {word for one in detected for phrase in one.words.split(", ") for word in phrase.split()}
    assert "dog" in words <= {"a", "red", "ball", "dog"}
    boxes = {i: Prompt(box=one.box) for i, one in enumerate(select_detections(detected, 0.2, 2), 1)}
    by_box = sam2.tracker(params(small, "transformers"), SIZE, None, False).begin(Moment(3, clip[3]), boxes)
    for i in (1, 2):
        np.testing.assert_array_equal(found[i].mask, by_box[i].mask)
    assert sorted(tracker.step(Moment(4, clip[4]))) == [1, 2]


def test_words_that_find_nothing_say_how_near_they_came(small, detector, clip):
    p = params(small, "transformers", text="dog", detector=str(detector), box_threshold=1.0)
    tracker = sam2.tracker(p, SIZE, None, False)
    best = GroundingDino(detector, tracker.device).detect(clip[0], "dog")[0].score
    with pytest.raises(ConfigError, match="E226") as caught:
        tracker.begin(Moment(0, clip[0]), {})
    assert f"{best:.3f}" in caught.value.message
    assert "masks.box_threshold=0." in caught.value.hint
    unnamed = params(small, "transformers", text="dog", detector=str(detector), box_threshold=0.0, text_threshold=1.0)
    with pytest.raises(ConfigError, match="E226") as caught:
        sam2.tracker(unnamed, SIZE, None, False).begin(Moment(0, clip[0]), {})
    assert "Lower masks.text_threshold" in caught.value.hint


def test_a_correction_of_an_object_that_words_did_not_find(small, detector, clip):
    fix = Correction(frame=5, object=9, points=((4, 4, 1),))
    p = params(small, "transformers", text="dog", detector=str(detector), box_threshold=0.01, corrections=(fix,))
    sam2.check(p, META)
    with pytest.raises(ConfigError, match="E224"):
        sam2.tracker(p, SIZE, None, False).begin(Moment(0, clip[0]), {})


def test_the_surest_of_overlapping_boxes_stays():
    boxes = [
        Detection((0, 0, 10, 10), 0.9, "dog"),
        Detection((1, 0, 11, 10), 0.8, "dog"),  # the same object
        Detection((0, 0, 10, 10), 0.7, ""),  # nothing that was asked for
        Detection((50, 0, 60, 10), 0.6, "ball"),
        Detection((80, 0, 90, 10), 0.5, "ball"),
        Detection((30, 0, 40, 10), 0.2, "ball"),
    ]
    assert select_detections(boxes, 0.3, 9) == [boxes[0], boxes[3], boxes[4]]
    assert select_detections(boxes, 0.3, 2) == [boxes[0], boxes[3]]
    assert select_detections(boxes, 0.95, 9) == []
    assert phrases(" A red  ball.. Dog. ") == ["a red ball", "dog"]


def test_the_real_detector_has_the_parameters_of_the_catalogue():
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

    with torch.device("meta"):
        model = GroundingDinoForObjectDetection(GroundingDinoConfig())
    size = sum({id(p): p.numel() for p in model.parameters()}.values()) * 4e-6
    assert size == pytest.approx(CATALOGUE["grounding_dino_tiny"].megabytes, rel=0.02)


# ---- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"text": "dog", "box": (1, 1, 40, 40)}, "E225"),
        ({"text": "dog", "objects": {2: PROMPTS[1]}}, "E225"),
        ({"text": " . "}, "E227"),
        ({}, "E222"),
        ({"box": (1, 1, 2, 2)}, "E221"),
        ({"text": "dog", "frame": 99}, "E231"),
    ],
)
def test_prompts_that_cannot_work(settings, code):
    early = partial(sam2.check, frames=META) if code in ("E221", "E231") else sam2.check_settings
    with pytest.raises(ConfigError, match=code):
        early(sam2.Params(**settings))


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({}, "sam2_small"),
        ({"backend": "sam2"}, "sam2_small_pt"),
        ({"weights": "sam2_large"}, "sam2_large"),
        ({"weights": "org/other@1a2b"}, "org/other@1a2b"),
        ({"text": "dog"}, "grounding_dino_tiny"),
    ],
)
def test_missing_weights_say_what_to_type(small, tmp_path, monkeypatch, settings, missing):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    here = {"weights": str(small["transformers"])} if "text" in settings else {}
    with pytest.raises(MachineError, match="E302") as caught:
        sam2.tracker(sam2.Params(**settings, **here), SIZE, None, False)
    assert caught.value.hint == f"Get it: retake weights {missing}"


@pytest.mark.parametrize("case", ["swapped", "folder", "other", "lacking", "pickle", "class", "baseless", "name"])
def test_weights_of_something_else(small, detector, tmp_path, case):
    from safetensors.torch import load_file, save_file

    folder, file = saved(tmp_path, small_model()).values()
    backend, path = ("transformers", folder) if case in ("swapped", "other", "lacking") else ("sam2", file)
    if case == "swapped":
        path = file
    elif case == "folder":
        path = folder
    elif case == "other":
        path = detector
    elif case == "lacking":
        tensors = load_file(folder / "model.safetensors")
        tensors.pop("no_object_pointer")
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    elif case == "pickle":
        torch.save({"model": as_package(small_model().state_dict()), "more": subprocess.Popen}, file)
    elif case == "class":
        path.with_suffix(".json").write_text(
            json.dumps(small_sam2.SMALL | {"model": {"image_encoder": {"_target_": "os.system"}}})
        )
    elif case == "baseless":
        path = path.rename(path.with_stem("sam2.1_hiera_small"))
        path.with_suffix(".json").write_text(json.dumps({"model": small_sam2.SMALL["model"]}))
    else:
        path.with_suffix(".json").unlink()
    with pytest.raises(RetakeError, match="E262") as caught:
        sam2.tracker(sam2.Params(backend=backend, weights=str(path)), SIZE, None, False)
    reasons = {"swapped": "backend=sam2", "folder": "backend=transformers", "lacking": "no_object_pointer"}
    reasons |= {"class": "_target_", "baseless": "other keys"}
    assert reasons.get(case, "") in caught.value.message


EVIL = """
open({marker!r}, "w").write("ran")
class Evil:
    @classmethod
    def from_pretrained(cls, *words, **options):
        return cls()
    @classmethod
    def register_for_auto_class(cls, *words):
        pass
"""


@pytest.mark.parametrize(
    ("whose", "file", "within", "auto"),
    [
        ("detector", "processor_config.json", (), "AutoProcessor"),
        ("detector", "tokenizer_config.json", (), "AutoTokenizer"),
        ("detector", "config.json", ("text_config",), "AutoModel"),
        ("sam2", "processor_config.json", ("image_processor",), "AutoImageProcessor"),
        ("sam2", "preprocessor_config.json", (), "AutoImageProcessor"),
        ("sam2", "config.json", ("vision_config",), "AutoModel"),
    ],
)
def test_code_that_lies_beside_weights_is_not_run(small, detector, tmp_path, monkeypatch, whose, file, within, auto):
    """Neither by itself nor after a question on the terminal, which somebody here answers with yes."""
    asked = []
    monkeypatch.setattr("builtins.input", lambda *text: asked.append(text) or "y")
    folder, marker = tmp_path / "weights", tmp_path / "ran"
    shutil.copytree({"detector": detector, "sam2": small["transformers"]}[whose], folder)
    (folder / "evil.py").write_text(EVIL.format(marker=str(marker)))
    about = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    node = about
    for name in within:
        node = node.setdefault(name, {})
    node |= {"auto_map": {auto: "evil.Evil"}, "image_processor_type": "Evil", "processor_class": "Evil"}
    (folder / file).write_text(json.dumps(about))
    load = {
        "detector": lambda: GroundingDino(folder, torch.device("cpu")),
        "sam2": lambda: sam2.tracker(sam2.Params(weights=str(folder)), SIZE, None, False),
    }[whose]
    with pytest.raises(ConfigError, match="E263") as caught:
        load()
    assert str(folder / file) in caught.value.message
    assert not asked
    assert not marker.exists()


# ---- what stands in the key ---------------------------------------------------------------------------------------


def test_the_settings_beside_a_file_are_part_of_its_key(small, tmp_path):
    store = Store(tmp_path / "store")
    for name in ("a.pt", "b.pt"):
        shutil.copy(small["sam2"], tmp_path / name)
        (tmp_path / name).with_suffix(".json").write_text(json.dumps(small_sam2.SMALL))

    def key(name: str) -> str:
        p = sam2.Params(backend="sam2", weights=str(tmp_path / name))
        return recipe_of(store, STAGES["masks"], p, Chosen("sam2@1", sam2.weights(p)), {}).key

    assert set(sam2.weights(params(small, "sam2"))) == {"sam2", "settings"}
    assert set(sam2.weights(params(small, "transformers"))) == {"sam2"}
    assert set(sam2.weights(sam2.Params(backend="sam2", weights="."))) == {"sam2"}
    assert key("a.pt") == key("b.pt")
    before = key("a.pt")
    other = small_sam2.SMALL | {"model": small_sam2.SMALL["model"] | {"memory_temporal_stride_for_eval": 2}}
    (tmp_path / "a.json").write_text(json.dumps(other))
    assert key("a.pt") not in (before, key("b.pt"))


def test_no_two_configurations_fit_the_same_file():
    """So a file's name, where it chooses the configuration, says nothing that the file's content does not."""
    linspace, shapes = torch.linspace, set()
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(torch, "linspace", lambda *a: linspace(*a, device="cpu"))
        for name in package.CONFIGS:
            network = package.build(package.configuration(Path(f"{name}.pt")))
            shapes.add(frozenset((key, tuple(tensor.shape)) for key, tensor in network.state_dict().items()))
    assert len(shapes) == len(package.CONFIGS)


def test_the_params_file_states_the_defaults():
    file = Path(__file__).parent.parent / "params/masks/sam2.yaml"
    assert yaml.safe_load(file.read_text()) == sam2.Params().model_dump(mode="json")
