"""Networks that metrics and prompts use: one file per family, each loaded from local weights."""
