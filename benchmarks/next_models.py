"""The tables of `embedded` for the models that are to come (retake/weights/next), beside the world: how far their
training is. Their U-Net takes the image autoencoder and the encoders of the one that ships.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import embedded
from retake.diffusion.model import Model

NEXT = Path(__file__).resolve().parents[1] / "retake" / "weights" / "next"
MODELS = {
    "next embedded": Model(weights=str(NEXT / "embedded"), parts="embedded"),
}
SMOKE = embedded.SMOKE


def run(**how: Any) -> list[dict[str, Any]]:
    """As embedded.run, without the table of the autoencoder."""
    rows = embedded.run(models=MODELS, **how)
    return [row for row in rows if row["table"] != "Autoencoder alone"]
