"""The transformers backend: Sam2VideoModel over an inference session that holds one frame at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retake.networks.checkpoint import load_local, model_type, wrong_weights
from retake.priors.masks.prompt import Moment, Prompt
from retake.priors.masks.sam2.follower import Follower, pixels, shared
from retake.priors.masks.sam2.memory import CONDITION, POSITIONS, RECENT, Output, Outputs, Reach, Tensors, at, unpack

if TYPE_CHECKING:
    import torch

    from retake.priors.masks.sam2.params import Params

WHAT = "a folder of transformers' Sam2VideoModel"
# One matrix under two names; a file may hold either.
TWINS = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")


class Streaming(Follower):
    """A `Tracker` (see prompt.py)."""

    def __init__(
        self, params: Params, size: tuple[int, int], paths: Mapping[str, Path], state: Tensors | None, reverse: bool
    ) -> None:
        super().__init__(params, size, paths, reverse)
        loaded = shared(Loaded, paths["sam2"], self.device, self.dtype)
        self.loaded, self.model, self.processor = loaded, loaded.model, loaded.processor
        self.session = self.processor.init_video_session(inference_device=self.device, dtype=self.dtype)
        self.session.video_width, self.session.video_height = size
        if state is not None:
            self.positions = self._encoded_positions()
            for i, outputs in unpack(state, self.reach, self.positions, self.device).items():
                self.session.output_dict_per_obj[self.session.obj_id_to_idx(i)] = outputs

    @property
    def reach(self) -> Reach:
        config = self.model.config
        return Reach(config.num_maskmem - 1, config.max_object_pointers_in_encoder - 1, "object_pointer")

    @property
    def outputs(self) -> dict[int, Outputs]:
        return {i: self.session.output_dict_per_obj[self.session.obj_id_to_idx(i)] for i in self.session.obj_ids}

    def _prompt(self, moment: Moment, prompts: Mapping[int, Prompt]) -> None:
        for i, prompt in prompts.items():
            self._add(moment.t, i, prompt)
        # Every call of the processor names its own objects alone as new, and one call for all would pad their points.
        self.session.obj_with_new_inputs = list(prompts)
        self._advance(moment)

    def _advance(self, moment: Moment) -> None:
        self.session.processed_frames = None
        self.model(self.session, frame=pixels(self.processor, moment.rgb), frame_idx=moment.t, reverse=self.reverse)
        for i in range(self.session.get_obj_num()):
            self.session.point_inputs_per_obj[i].clear()
            self.session.frames_tracked_per_obj[i].clear()

    def _correct(self, moment: Moment, object: int, prompt: Prompt) -> None:
        """As SAM 2 refines a mask: the click joins the logits so far and the memory. transformers' own call for new
        inputs leaves the logits out and keeps the frame among the recent ones, which are forgotten."""
        import torch

        k = self.session.obj_id_to_idx(object)
        outputs = self.session.output_dict_per_obj[k]
        self._add(moment.t, object, prompt)
        self.session.obj_with_new_inputs = []
        with torch.inference_mode():
            output = self.model._run_single_frame_inference(
                inference_session=self.session,
                frame_idx=moment.t,
                obj_idx=k,
                batch_size=1,
                is_init_cond_frame=False,
                point_inputs=self.session.point_inputs_per_obj[k].pop(moment.t),
                mask_inputs=None,
                reverse=self.reverse,
                prev_sam_mask_logits=at(outputs, moment.t)["pred_masks"].clamp(-32.0, 32.0),
                streaming=True,
            )
            outputs[RECENT].pop(moment.t, None)
            outputs[CONDITION].pop(moment.t, None)
            self.session.store_output(k, moment.t, output_value=output, is_conditioning_frame=True)
            self.model._batch_encode_memories(
                inference_session=self.session,
                frame_idx=moment.t,
                objects_needing_memory_encoding=[k],
                high_res_masks_for_memory=[output["high_res_masks"]],
                object_score_logits_for_memory=[output["object_score_logits"]],
                is_mask_from_pts_per_obj=[True],
            )

    def _add(self, t: int, object: int, prompt: Prompt) -> None:
        points = {
            "input_points": [[[[float(x), float(y)] for x, y, _ in prompt.points]]],
            "input_labels": [[[label for *_, label in prompt.points]]],
        }
        self.processor.add_inputs_to_inference_session(
            self.session,
            frame_idx=t,
            obj_ids=object,
            input_boxes=None if prompt.box is None else [[list(prompt.box)]],
            **(points if prompt.points else {}),
        )

    def _positions_of(self, output: Output) -> torch.Tensor:
        return output[POSITIONS].clone()  # a slice of one that was repeated for every object

    def _encoded_positions(self) -> torch.Tensor:
        """The encoding [HW, 1, C] that every output carries, whatever its features are."""
        import torch

        height, width = self.model.backbone_feature_sizes[-1]
        shape = torch.Size((1, self.model.mem_dim, height, width))
        encoded = self.model.memory_encoder.position_encoding(shape, self.device, self.dtype)
        return encoded.flatten(2).permute(2, 0, 1).clone()


class Loaded:
    """The network and its processor, from a local folder. Raises ConfigError E262, E263."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        from transformers import Sam2VideoModel, Sam2VideoProcessor

        if not folder.is_dir():
            raise wrong_weights(folder, WHAT, ".pt files belong to masks.backend=sam2")
        if (kind := model_type(folder, WHAT)) != "sam2_video":
            raise wrong_weights(folder, WHAT, f"its config.json is that of {kind!r}")
        self.processor: Any = load_local(Sam2VideoProcessor, folder, WHAT)
        options = {"use_safetensors": True, "dtype": dtype, "output_loading_info": True}
        model, info = load_local(Sam2VideoModel, folder, WHAT, **options)
        missing = set(info["missing_keys"])
        if lost := missing - set(TWINS) or (missing if missing >= set(TWINS) else set()):
            raise wrong_weights(folder, WHAT, f"{len(lost)} tensors are missing, the first {min(lost)}")
        for name, other in (TWINS, TWINS[::-1]):
            if name in missing:
                model.get_buffer(name).copy_(model.get_buffer(other))
        self.model: Any = model.to(device).eval()
