"""A dataset: every edit of every clip of a manifest, brought to an end whatever becomes of any one of them."""
