"""A clip taken apart into layers and put together anew along edited tracks, without a model."""
