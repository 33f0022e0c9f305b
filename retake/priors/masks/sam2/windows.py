"""The sam2 backend: the package's SAM2VideoPredictor over a window of one frame.

The predictor wants a clip's frames as one tensor and keeps every frame's outputs. Here `images` knows only the current
frame, and memory.py forgets what is not read again. The keys of the inference state are those of sam2 1.1.0.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retake.priors.masks.prompt import Moment, Prompt
from retake.priors.masks.sam2.follower import Follower, pixels, shared
from retake.priors.masks.sam2.memory import RECENT, Outputs, Reach, Tensors, unpack
from retake.priors.masks.sam2.package import predictor

if TYPE_CHECKING:
    import torch

    from retake.priors.masks.sam2.params import Params

ENDLESS = 1 << 30  # frames of a clip whose length is not known: lets pointers reach as far as they do in long clips


class Window:
    """The frames of a clip, of which only the current one is there."""

    def __init__(self) -> None:
        self.current: dict[int, torch.Tensor] = {}

    def __getitem__(self, t: int) -> torch.Tensor:
        return self.current[t]

    def __len__(self) -> int:
        return ENDLESS


class Windows(Follower):
    """A `Tracker` (see prompt.py)."""

    def __init__(
        self, params: Params, size: tuple[int, int], paths: Mapping[str, Path], state: Tensors | None, reverse: bool
    ) -> None:
        from transformers import Sam2ImageProcessor

        super().__init__(params, size, paths, reverse)
        self.predictor: Any = shared(predictor, paths["sam2"], self.device)
        side = self.predictor.image_size
        self.processor = Sam2ImageProcessor(size={"height": side, "width": side})
        self.window = Window()
        self.inference = inference_state(self.window, size, self.device)
        if state is not None:
            self.positions = self._encoded_positions()
            for i, outputs in unpack(state, self.reach, self.positions, self.device).items():
                k = self.predictor._obj_id_to_idx(self.inference, i)
                self.inference["output_dict_per_obj"][k] = outputs

    @property
    def reach(self) -> Reach:
        p = self.predictor
        memories = 1 + (p.num_maskmem - 2) * p.memory_temporal_stride_for_eval
        return Reach(memories, p.max_obj_ptrs_in_encoder - 1, "obj_ptr")

    @property
    def outputs(self) -> dict[int, Outputs]:
        return {i: self.inference["output_dict_per_obj"][k] for i, k in self.inference["obj_id_to_idx"].items()}

    def _prompt(self, moment: Moment, prompts: Mapping[int, Prompt]) -> None:
        self._show(moment)
        with self._precision():
            for i, prompt in prompts.items():
                self._add(moment.t, i, prompt)
            self.predictor.propagate_in_video_preflight(self.inference)

    def _advance(self, moment: Moment) -> None:
        """The body of the predictor's `propagate_in_video`, which draws a bar for every call and does not step to
        frame 0 in reverse."""
        self._show(moment)
        with self._precision():
            for k, outputs in self.inference["output_dict_per_obj"].items():
                outputs[RECENT][moment.t], _ = self.predictor._run_single_frame_inference(
                    inference_state=self.inference,
                    output_dict=outputs,
                    frame_idx=moment.t,
                    batch_size=1,
                    is_init_cond_frame=False,
                    point_inputs=None,
                    mask_inputs=None,
                    reverse=self.reverse,
                    run_mem_encoder=True,
                )
                self.inference["frames_tracked_per_obj"][k] = {moment.t: {"reverse": self.reverse}}

    def _correct(self, moment: Moment, object: int, prompt: Prompt) -> None:
        with self._precision():
            self._add(moment.t, object, prompt)
            self.predictor.propagate_in_video_preflight(self.inference)

    def _add(self, t: int, object: int, prompt: Prompt) -> None:
        given = np.array(prompt.points, np.float32).reshape(-1, 3)
        self.predictor.add_new_points_or_box(
            self.inference,
            t,
            object,
            points=given[:, :2] if len(given) else None,
            labels=given[:, 2].astype(np.int32) if len(given) else None,
            box=None if prompt.box is None else np.array(prompt.box, np.float32),
        )
        for inputs in self.inference["point_inputs_per_obj"].values():
            inputs.clear()

    def _show(self, moment: Moment) -> None:
        self.window.current = {moment.t: pixels(self.processor, moment.rgb)}

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        """Weights stay float32; the package computes in less under autocast."""
        import torch

        lower = self.dtype is not torch.float32
        with torch.inference_mode(), torch.autocast(self.device.type, self.dtype if lower else None, enabled=lower):
            yield

    def _encoded_positions(self) -> list[torch.Tensor]:
        """The encoding that every output carries: the memory encoder's, whatever it encodes."""
        import torch

        p = self.predictor
        grid = p.sam_image_embedding_size
        features = torch.zeros(1, p.hidden_dim, grid, grid, device=self.device)
        mask = torch.zeros(1, 1, p.image_size, p.image_size, device=self.device)
        with self._precision():
            return p.memory_encoder(features, mask, skip_mask_sigmoid=True)["vision_pos_enc"]


def inference_state(window: Window, size: tuple[int, int], device: torch.device) -> dict[str, Any]:
    """What the predictor's `init_state` makes for a clip, without reading one."""
    return {
        "images": window,
        "num_frames": len(window),
        "offload_video_to_cpu": False,
        "offload_state_to_cpu": False,
        "video_height": size[1],
        "video_width": size[0],
        "device": device,
        "storage_device": device,
        "point_inputs_per_obj": {},
        "mask_inputs_per_obj": {},
        "cached_features": {},
        "constants": {},
        "obj_id_to_idx": OrderedDict(),
        "obj_idx_to_id": OrderedDict(),
        "obj_ids": [],
        "output_dict_per_obj": {},
        "temp_output_dict_per_obj": {},
        "frames_tracked_per_obj": {},
    }
