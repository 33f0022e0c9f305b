"""Networks that metrics and prompts look through: one file a family, each loaded from local weights."""
