"""Families of diffusion models: `model.family=NAME` is the package NAME here. Its `__init__`, read by plans, so without
torch, says what the family is made of:

    NETWORK   role of the denoiser, which is also the name of its folder in diffusers' format: "unet", "transformer"
    CLASSES   role -> names of the classes that may stand there; no other class is ever loaded. Without "text_encoder"
              the family reads pictures alone
    SETTINGS  settings of a model that this family takes and not every family does: "motion", "image_adapter"
    METHODS   only where it serves some methods alone: their names

Its `adapter.py` runs it:

    Adapter(parts, schedule, frames, height, width): a Backbone over diffusers' own classes; sizes in pixels
    network(model, folders, found, dtype): the denoiser that the settings describe, read from `folders`; `found` holds
              the encoders by role
    assembled(found): only where the denoiser is made of several components: the denoiser out of components by role,
              which are taken from `found`; also on the meta device
    refuse(config): only where some kinds of the denoiser are not supported: raises ConfigError for a configuration
              (a mapping) of one, before anything is read
    text_width(config): D of the text states [B, L, D] that a denoiser of this configuration attends to
    channels(config): only where it reads more than latents: channels of these
    inputs(backbone, device): only where it is conditioned on more than text states: empty inputs of the network
    site(config): the site whose features [B, f, C', h', w'] are read with gradients

`common` holds what families share.
"""
