"""The guard: numbers that a frozen picture wins are withheld where the result stands still and its source moves."""

from __future__ import annotations

from collections.abc import Mapping

MOVES = 0.25  # % of the short side in 1/8 s: the source moves; about 1 px at 480 px
STILL = 0.2  # of the source's motion: a result that moves less stands still

# Values of the result, and their differences to the source, that grow (or fall, for LPIPS-T) when nothing moves.
# Not among them: lpips_t_delta and lpips_t_warped, which a frozen picture fails.
WHOLE = (
    "flicker",
    "flicker_delta",
    "tc_full",
    "tc_full_delta",
    "subject_consistency",
    "subject_consistency_delta",
    "background_consistency",
    "background_consistency_delta",
    "smoothness",
    "smoothness_delta",
    "lpips_t",
)
EDIT = ("flicker_edit", "flicker_edit_delta", "tc_edit", "tc_edit_delta")


def guarded(summary: Mapping[str, float | None]) -> tuple[dict[str, float | None], dict[str, str]]:
    """The summary with those values set to None that reward standing still, and value name -> reason for each.

    Where the whole frame stands still all of them go; where only the edited region does, those of the region. Without
    the values of dynamics nothing can be judged, and nothing is withheld.
    """
    withheld: dict[str, str] = {}
    if frozen(summary, ""):
        withheld |= dict.fromkeys((*WHOLE, *EDIT), reason(summary, "", "the result"))
    elif frozen(summary, "_edit"):
        withheld |= dict.fromkeys(EDIT, reason(summary, "_edit", "the edited region"))
    reasons = {name: text for name, text in withheld.items() if summary.get(name) is not None}
    return {name: None if name in reasons else value for name, value in summary.items()}, reasons


def frozen(summary: Mapping[str, float | None], part: str) -> bool:
    """Whether the result stands still while the source moves; `part` is "" or "_edit"."""
    mine, source = summary.get(f"motion{part}"), summary.get(f"motion{part}_source")
    return mine is not None and source is not None and source >= MOVES and mine < STILL * source


def reason(summary: Mapping[str, float | None], part: str, what: str) -> str:
    """In words, with the two numbers."""
    return (
        f"withheld: {what} stands still (motion {summary[f'motion{part}']:.2f} % of the short side) while the source "
        f"moves ({summary[f'motion{part}_source']:.2f} %), and a frozen picture would win this"
    )
