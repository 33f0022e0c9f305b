"""Why a stage would run: the ingredient that differs from the nearest earlier result."""

from __future__ import annotations

from typing import Any

from retake.recipe import Recipe, differences
from retake.store import Store


def why_missing(store: Store, recipe: Recipe) -> str:
    """In words, which ingredient differs from the nearest earlier result of the same stage."""
    nearest = nearest_record(store, recipe)
    if nearest is None:
        return "first time: nothing like it is in the store"
    changed = differences(recipe.ingredients(), nearest.recipe)
    if not changed:
        return "made before, but its objects are missing or damaged"
    return "; ".join(in_words(recipe.stage, *difference) for difference in changed)


def nearest_record(store: Store, recipe: Recipe, at_most: int = 500) -> Any:
    """The record of the same stage with the fewest differing ingredients; of equals one of the same inputs (another
    clip with the new setting is no reason why this one has to run), and of these the latest."""
    ingredients, best, fewest = recipe.ingredients(), None, None
    for count, record in enumerate(store.records(recipe.stage)):
        if count >= at_most:
            break
        found = [name for name, _, _ in differences(ingredients, record.recipe)]
        distance = len(found), sum(name.startswith("inputs.") for name in found)
        if fewest is None or distance < fewest:
            best, fewest = record, distance
    return best


def in_words(stage: str, name: str, new: Any, old: Any) -> str:
    """`edit.strength: 0.5 -> 0.7`, as it would be typed; digests shortened; of corrections, which came or went."""
    if name == "params.corrections" and isinstance(new, list) and isinstance(old, list):
        came, went = [c["frame"] for c in new if c not in old], [c["frame"] for c in old if c not in new]
        changes = [f"a new correction on frame {t}" for t in came] + [f"none on frame {t} any more" for t in went]
        return ", ".join(changes) or "corrections in another order"
    lists = isinstance(new, list) and isinstance(old, list) and len(new) == len(old)
    if lists and all(isinstance(one, dict) for one in (*new, *old)):
        inner = [
            (f"{name}.{n}.{key}", a.get(key), b.get(key))
            for n, (a, b) in enumerate(zip(new, old, strict=True))
            for key in sorted({*a, *b})
            if a.get(key) != b.get(key)
        ]
        return "; ".join(in_words(stage, *one) for one in inner)
    if name.startswith("inputs.") and new and old:
        what = name.removeprefix("inputs.")
        return f"another {what} ({short(old)} -> {short(new)})"
    typed = name
    if name.startswith("params."):
        # Stages that run a diffusion model are called with two groups of settings (retake/diffusion/model.py).
        own = name.removeprefix("params.").removeprefix("settings.")
        typed = own if own.startswith("model.") else f"{stage}.{own}"
    return f"{typed}: {short(old)} -> {short(new)}"


def short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    is_digest = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return text[:10] if is_digest else text if len(text) <= 60 else text[:57] + "..."
