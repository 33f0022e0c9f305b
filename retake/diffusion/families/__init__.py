"""Adapters: one module a family of models, each a Backbone over diffusers' own classes."""
