"""Keys: pinned digests, one encoding a value, and a walk over every field of every settings model."""

from __future__ import annotations

import hashlib
import math
from typing import Any, Literal, get_origin

import pytest
from helpers import golden
from helpers.fields import another
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from flows.settings.choice import CHOICES
from flows.settings.compose import MODELS
from flows.settings.dataset import Dataset
from retake.lookup import lookup, names
from retake.params import keyed_params
from retake.recipe import Recipe, differences, digest, encode
from retake.store import Store


def test_pinned_digests():
    """A change of the encoding orphans every store: it needs a new SCHEMA, not a new number here."""
    pinned = golden.read("recipe")
    value = {"a": [1, 1.0, "1", True, None, b"1"], "b": {"c": -0.5, "é": []}}
    assert digest(None) == pinned["none"]
    assert encode(value) == (
        b"m2:s1:al6:i1;d0x1.0000000000000p+0;s1:1tny1:1s1:bm2:s1:cd-0x1.0000000000000p-1;s2:\xc3\xa9l0:"
    )
    assert digest(value) == pinned["value"]
    recipe = Recipe("depth", 1, 1, "parallax@1", {"near": 2}, {"frames": "f" * 64}, backends={"opencv": "5"})
    assert recipe.key == pinned["key"]


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equal in value and in type, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@given(plain, plain)
def test_encoding_is_one_to_one(a, b):
    assert (encode(a) == encode(b)) == same(a, b)


@pytest.mark.parametrize("value", [math.nan, math.inf, {1: 2}, object(), {"a": {1, 2}}])
def test_what_cannot_be_in_a_key_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        encode(value)


def test_order_of_a_mapping_does_not_matter():
    assert encode({"b": 1, "a": 2}) == encode({"a": 2, "b": 1})


def test_every_ingredient_changes_the_key():
    base = Recipe("depth", 1, 1, "parallax@1", {"near": 2}, {"frames": "a"}, {"net": "x@1"}, "fp16", {"opencv": "5"})
    changed = [
        Recipe("depth", 1, 2, "parallax@1", {"near": 2}, {"frames": "a"}, {"net": "x@1"}, "fp16", {"opencv": "5"}),
        Recipe("flow", 1, 1, "parallax@1", {"near": 2}, {"frames": "a"}, {"net": "x@1"}, "fp16", {"opencv": "5"}),
        Recipe("depth", 2, 1, "parallax@1", {"near": 2}, {"frames": "a"}, {"net": "x@1"}, "fp16", {"opencv": "5"}),
        Recipe("depth", 1, 1, "parallax@2", {"near": 2}, {"frames": "a"}, {"net": "x@1"}, "fp16", {"opencv": "5"}),
        Recipe("depth", 1, 1, "parallax@1", {"near": 3}, {"frames": "a"}, {"net": "x@1"}, "fp16", {"opencv": "5"}),
        Recipe("depth", 1, 1, "parallax@1", {"near": 2}, {"frames": "b"}, {"net": "x@1"}, "fp16", {"opencv": "5"}),
        Recipe("depth", 1, 1, "parallax@1", {"near": 2}, {"frames": "a"}, {"net": "x@2"}, "fp16", {"opencv": "5"}),
        Recipe("depth", 1, 1, "parallax@1", {"near": 2}, {"frames": "a"}, {"net": "x@1"}, "bf16", {"opencv": "5"}),
        Recipe("depth", 1, 1, "parallax@1", {"near": 2}, {"frames": "a"}, {"net": "x@1"}, "fp16", {"opencv": "6"}),
    ]
    assert len({r.key for r in [base, *changed]}) == 10


def test_differences_name_the_leaf():
    found = differences({"params": {"a": 1, "b": [1]}, "x": 1}, {"params": {"a": 2, "b": [1]}, "x": 1.0})
    assert found == [("params.a", 1, 2), ("x", 1, 1.0)]


def models() -> list[tuple[str, type[BaseModel]]]:
    """Every settings model that a stage is keyed by."""
    packages = {**CHOICES, "metrics": "metrics"}
    chosen = [(f"{group}={name}", lookup(p, name).Params) for group, p in packages.items() for name in names(p)]
    return chosen + [(group, model) for group, model in MODELS.items() if model is not Dataset]


def fields() -> list[tuple[str, type[BaseModel], str]]:
    return [(f"{label}.{name}", model, name) for label, model in models() for name in model.model_fields]


def minimal(model: type[BaseModel]) -> BaseModel:
    """A valid instance: defaults, and some text where a value is required."""
    return model(**{name: "x" for name, info in model.model_fields.items() if info.is_required()})


@pytest.mark.parametrize(("label", "model", "name"), fields(), ids=[f[0] for f in fields()])
def test_each_field_changes_the_key_or_is_declared_inert(label, model, name):
    info = model.model_fields[name]
    marks = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    base = minimal(model)
    value = another(info.annotation, getattr(base, name))
    if value is None:
        nested = isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
        assert nested or get_origin(info.annotation) is Literal, f"{label} has only one value"
        return
    changed = base.model_copy(update={name: value})

    def key(params: BaseModel) -> str:
        return Recipe("stage", 1, params=keyed_params(params, lambda path: digest(["content of", path]))).key

    if (lists := marks.get("listed")) is not None:  # counts while it is asked for, and only then
        assert key(changed.model_copy(update={lists: ()})) == key(base.model_copy(update={lists: ()}))
        changed, base = (one.model_copy(update={lists: (name,)}) for one in (changed, base))
    assert (key(changed) == key(base)) == ("inert" in marks), f"{label} is {marks or 'not declared inert'}"
    assert info.description, f"{label} has no description"


def test_every_reference_of_weights_is_marked():
    """Else its path would stand in keys, and the same file elsewhere would be another ingredient."""
    named = {
        label: model.model_fields[name] for label, model, name in fields() if name.endswith(("weights", "detector"))
    }
    assert {"optical_flow=raft.weights", "depth=depth_anything.weights", "masks=sam2.detector"} <= named.keys()
    assert [label for label, info in named.items() if "weights" not in (info.json_schema_extra or {})] == []


def test_weights_are_known_as_they_are_found(tmp_path, monkeypatch):
    """By content where the reference is a path, from wherever it is seen; by name where it is one."""
    raft, store = lookup("priors.optical_flow", "raft").Params, Store(tmp_path / "store")

    def keyed(reference: str) -> str:
        return keyed_params(raft(weights=reference), store.source_digest)["weights"]

    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here))
    (here / "a.pth").write_bytes(b"weights")
    (here / "b.pth").write_bytes(b"weights")
    (here / "c.pth").write_bytes(b"others")
    assert keyed("a.pth") == keyed("b.pth") == keyed("~/a.pth") == keyed(str(here / "a.pth")) == keyed("./a.pth")
    assert keyed("a.pth") == hashlib.sha256(b"weights").hexdigest() != keyed("c.pth")
    for name in ("raft_large", "org/repo", "gone.pth", "~/gone.pth", "", "a" * 300, "a" * 300 + "/b"):
        assert keyed(name) == name
    (here / "raft_large").mkdir()
    (here / "raft_large/notes.txt").write_text("a folder that happens to be called so")
    assert keyed("raft_large") == "raft_large"


def test_a_file_is_known_by_its_content_not_by_its_name(tmp_path):
    propagate = lookup("methods", "propagate").Params
    content = {"a.png": "1", "b.png": "1", "c.png": "2"}
    a, b, c = (keyed_params(propagate(reference=name), content.__getitem__) for name in content)
    assert a == b != c
