"""What families share: the U-Net of images and its walk, the autoencoder of images, states of text and images."""

# Classes of the encoders by role, for `CLASSES` of families that read text and images by CLIP.
CLIP = {
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "image_encoder": ("CLIPVisionModel", "CLIPVisionModelWithProjection"),
}
