"""SAM 2 and Grounding DINO in small, with random weights, for test_sam2.py and test_sam2_words.py."""

from __future__ import annotations

import json
import re

import numpy as np
import torch

from retake.formats import pack, unpack
from retake.priors.masks import sam2
from retake.priors.masks.prompt import Moment, Prompt
from retake.priors.masks.sam2 import memory
from retake.synthetic.scenes import scene
from retake.synthetic.world import World

WIDTH, HEIGHT, FRAMES = 96, 64, 20
SIZE = (WIDTH, HEIGHT)
PROMPTS = {1: Prompt(box=(20, 20, 50, 50)), 2: Prompt(points=((70, 30, 1), (10, 10, 0)))}
CORRECTED = 9  # frames after the prompt
STOPS = {0, 1, 5, 6, CORRECTED - 1, CORRECTED, 14, 15, 16}  # where a memory begins, is corrected, and is full
CLICK = Prompt(points=((60, 40, 1),))
META = {"count": FRAMES, "width": WIDTH, "height": HEIGHT, "source_width": WIDTH, "source_height": HEIGHT}


def frames():
    """The clip, uint8 RGB."""
    world = World(scene("cross", width=WIDTH, height=HEIGHT, frames=FRAMES))
    return [world.frame(t) for t in range(FRAMES)]


# ---- a small checkpoint, under the names of both libraries --------------------------------------------------------

SMALL = {
    "base": "sam2.1_hiera_small",
    "model": {
        "image_size": 128,
        "image_encoder": {
            "trunk": {
                "embed_dim": 16,
                "stages": [1, 1, 2, 1],
                "global_att_blocks": [3],
                "window_spec": [8, 4, 4, 4],
                "window_pos_embed_bkg_spatial_size": [4, 4],
            },
            "neck": {
                "d_model": 128,
                "backbone_channel_list": [128, 64, 32, 16],
                "position_encoding": {"num_pos_feats": 128},
            },
        },
        "memory_attention": {
            "d_model": 128,
            "num_layers": 2,
            "layer": {
                "d_model": 128,
                "dim_feedforward": 128,
                "self_attention": {"embedding_dim": 128, "feat_sizes": [8, 8]},
                "cross_attention": {"embedding_dim": 128, "feat_sizes": [8, 8]},
            },
        },
        "memory_encoder": {
            "in_dim": 128,
            "mask_downsampler": {"embed_dim": 128},
            "fuser": {"layer": {"dim": 128}},
        },
    },
}
HEADS = {"proj_in": "layers.0", "layers.0": "layers.1", "proj_out": "layers.2"}
NAMES = (  # transformers' names, and the sam2 package's
    (r"^no_memory_embedding", "no_mem_embed"),
    (r"^no_memory_positional_encoding", "no_mem_pos_enc"),
    (r"^memory_temporal_positional_encoding", "maskmem_tpos_enc"),
    (r"^no_object_pointer", "no_obj_ptr"),
    (r"^occlusion_spatial_embedding_parameter", "no_obj_embed_spatial"),
    (r"^temporal_positional_encoding_projection_layer", "obj_ptr_tpos_proj"),
    (r"^vision_encoder\.backbone", "image_encoder.trunk"),
    (r"^vision_encoder\.neck\.convs\.(\d)", r"image_encoder.neck.convs.\1.conv"),
    (r"patch_embed\.projection", "patch_embed.proj"),
    (r"shared_embedding\.positional_embedding", "pe_layer.positional_encoding_gaussian_matrix"),
    (r"mask_embed\.conv(\d)", lambda m: f"mask_downscaling.{3 * int(m[1]) - 3}"),
    (r"mask_embed\.layer_norm(\d)", lambda m: f"mask_downscaling.{3 * int(m[1]) - 2}"),
    (r"upscale_conv1", "output_upscaling.0"),
    (r"upscale_layer_norm", "output_upscaling.1"),
    (r"upscale_conv2", "output_upscaling.3"),
    (r"(mlps\.\d|_head|object_pointer_proj)\.(proj_in|layers\.0|proj_out)", lambda m: f"{m[1]}.{HEADS[m[2]]}"),
    (r"mlp\.proj_in", "mlp.layers.0"),
    (r"mlp\.proj_out", "mlp.layers.1"),
    (r"downsampler\.layers\.(\d)\.conv", lambda m: f"downsampler.encoder.{3 * int(m[1])}"),
    (r"downsampler\.layers\.(\d)\.layer_norm", lambda m: f"downsampler.encoder.{3 * int(m[1]) + 1}"),
    (r"downsampler\.final_conv", "downsampler.encoder.12"),
    (r"memory_encoder\.feature_projection", "memory_encoder.pix_feat_proj"),
    (r"memory_encoder\.projection", "memory_encoder.out_proj"),
    (r"memory_fuser", "fuser"),
    (r"\.scale$", ".gamma"),
    (r"depthwise_conv", "dwconv"),
    (r"pointwise_conv", "pwconv"),
    (r"^object_pointer_proj", "obj_ptr_proj"),
    (r"layer_norm", "norm"),
    (r"\.o_proj", ".out_proj"),
    (r"^(prompt_encoder|mask_decoder)", r"sam_\1"),
)


def as_package(tensors):
    """A transformers checkpoint under the names of the sam2 package."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        if name.endswith("point_embed.weight") and "not_a" not in name:
            renamed |= {name.replace("embed.", f"embeddings.{k}."): row[None].clone() for k, row in enumerate(tensor)}
        elif not name.startswith("shared_image_embedding"):  # the same matrix once more
            renamed[name] = tensor.clone()
    return renamed


def small_model(seed=1, score=3.0):
    """Sam2VideoModel with random weights that make masks of some pixels; `score` is what objects score at least."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    trunk = {"model_type": "sam2_hiera_det_model", "hidden_size": 16, "image_size": [128, 128]}
    trunk |= {"blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [16, 32, 64, 128]}
    trunk |= {"window_size_per_stage": [8, 4, 4, 4], "global_attention_blocks": [3]}
    trunk |= {"window_positional_embedding_background_size": [4, 4]}
    vision = {"model_type": "sam2_vision_model", "backbone_config": trunk, "fpn_hidden_size": 128}
    vision |= {"backbone_channel_list": [128, 64, 32, 16], "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]]}
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128, "image_size": 128},
        mask_decoder_config={"hidden_size": 128},
        image_size=128,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=128,
        memory_attention_rope_feat_sizes=[8, 8],
        memory_encoder_hidden_size=128,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=512,
    )
    model, draw = Sam2VideoModel(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" not in name:
                spread = p[0].numel() ** -0.5 if p.ndim > 1 else 0.1
                p.copy_(torch.randn(p.shape, generator=draw) * spread)
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(score)
        matrix = model.prompt_encoder.shared_embedding.positional_embedding
        matrix.copy_(torch.randn(matrix.shape, generator=draw))
        model.shared_image_embedding.positional_embedding.copy_(matrix)
    return model.eval()


def saved(folder, model):
    """Paths of the checkpoint by backend."""
    from transformers import Sam2ImageProcessor, Sam2VideoProcessor, Sam2VideoVideoProcessor

    side = {"height": 128, "width": 128}
    model.save_pretrained(folder / "small")
    Sam2VideoProcessor(Sam2ImageProcessor(size=side), Sam2VideoVideoProcessor(size=side)).save_pretrained(
        folder / "small"
    )
    torch.save({"model": as_package(model.state_dict())}, folder / "small.pt")
    (folder / "small.json").write_text(json.dumps(SMALL))
    return {"transformers": folder / "small", "sam2": folder / "small.pt"}


# ---- a small detector ---------------------------------------------------------------------------------------------

VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "a", "red", "ball", "dog")


def detector(folder):
    """Grounding DINO in small, with random weights that draw boxes of all sizes, and its processor, in a folder."""
    from transformers import (
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )

    swin = {"model_type": "swin", "image_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
    bert = {"model_type": "bert", "vocab_size": len(VOCABULARY), "hidden_size": 16, "num_hidden_layers": 1}
    config = GroundingDinoConfig(
        backbone_config=swin | {"window_size": 4, "out_indices": [2, 3, 4]},
        text_config=bert | {"num_attention_heads": 2, "intermediate_size": 16},
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=30,
    )
    model, draw = GroundingDinoForObjectDetection(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            last = "bbox_embed" in name and "layers.2" in name
            if p.ndim > 1:
                p.copy_(torch.randn(p.shape, generator=draw) * p[0].numel() ** -0.5 * (0.1 if last else 1.0))
            elif last:
                p.copy_(torch.tensor([0.0, 0.0, 1.2, 1.2]))
    model.save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: k for k, word in enumerate(VOCABULARY)})
    pictures = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


# ---- following ------------------------------------------------------------------------------------------------------


def times_of(clip, reverse):
    return list(range(len(clip)))[:: -1 if reverse else 1]


def params(small, backend, **others):
    return sam2.Params(backend=backend, weights=str(small[backend]), **others)


def followed(p, clip, reverse, correct=True, stops=False):
    """Masks bool [T, 2, H, W] from the prompt on, and the network's logits. With `stops` another tracker
    goes on behind each of STOPS, made from the state by way of the bytes that a store would keep."""
    tracker, masks, logits = sam2.tracker(p, SIZE, None, reverse), [], []
    for k, t in enumerate(times_of(clip, reverse)):
        moment = Moment(t, clip[t])
        found = tracker.begin(moment, PROMPTS) if k == 0 else tracker.step(moment)
        if correct and k == CORRECTED:
            found[1] = tracker.correct(moment, 1, CLICK)
        masks.append(np.stack([found[i].mask for i in (1, 2)]))
        logits.append(np.stack([memory.at(tracker.outputs[i], t)["pred_masks"].float()[0, 0].numpy() for i in (1, 2)]))
        if stops and k in STOPS:
            tracker = sam2.tracker(p, SIZE, unpack(pack(tracker.state())), reverse)
    return np.stack(masks), np.stack(logits)
