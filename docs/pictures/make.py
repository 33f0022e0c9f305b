"""Make the pictures of this folder again: `python docs/pictures/make.py FOLDER`, in an environment of `make install`.

FOLDER gets the clips, the edits and their store. The screenshots need Chromium on the PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from retake.synthetic import scenes
from retake.synthetic.pictures import reference_image
from retake.synthetic.world import World
from retake.video import encode, write_png

HERE = Path(__file__).resolve().parent
SCENES = ("zoom", "drift")
SHOWN = (0, 12, 24, 36)  # frames of the strip


def retake(folder: Path, *words: str) -> dict:
    """The JSON object that a command prints."""
    places = {f"RETAKE_{name.upper()}": str(folder / name) for name in ("store", "edits", "datasets")}
    command = [sys.executable, "-m", "flows", *words, "--json"]
    environment = os.environ | places | {"PYTHONPATH": str(HERE.parent.parent)}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def save(name: str, picture: Image.Image) -> None:
    picture.convert("RGB").quantize(256).save(HERE / name, optimize=True)


def frames(video: Path) -> np.ndarray:
    """The frames of the strip side by side, uint8 RGB."""
    reader = cv2.VideoCapture(str(video))
    read = [reader.read()[1][..., ::-1] for _ in range(max(SHOWN) + 1)]
    return np.concatenate([np.pad(read[t], ((0, 6), (0, 6), (0, 0)), constant_values=255) for t in SHOWN], 1)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "picture.png"
    write_png(picture, reference_image("patchwork", 256)[..., :3])
    rows, boxes = ["id,clip,masks.box"], {}
    for name in SCENES:
        world = World(scenes.scene(name, width=480, height=270))
        encode(folder / f"{name}.mp4", (world.frame(t) for t in range(world.frames)), world.fps, crf=12)
        x0, y0, x1, y1 = world.box(0, 0) or (0, 0, 0, 0)
        boxes[name] = f"[{x0 - 6},{y0 - 6},{x1 + 6},{y1 + 6}]"
        rows.append(f'{name},{name}.mp4,"{boxes[name]}"')
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    retake(folder, "dataset", "clips.csv", f"edit.reference={picture}")
    clip = folder / f"{SCENES[0]}.mp4"
    done = retake(folder, "edit", str(clip), f"masks.box={boxes[SCENES[0]]}", f"edit.reference={picture}")["outputs"]
    save("strip.png", Image.fromarray(np.concatenate([frames(clip), frames(Path(done["video"]))])).resize((972, 276)))
    gallery = next((folder / "datasets").glob("*/index.html"))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, page, height in (("report.png", Path(done["report"]), 690), ("gallery.png", gallery, 290)):
            view = chromium.new_page(viewport={"width": 1100, "height": height})
            view.goto(page.as_uri())
            view.wait_for_timeout(2500)
            view.screenshot(path=folder / name)
            save(name, Image.open(folder / name))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
