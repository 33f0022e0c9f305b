"""Settings: from params/ and what was typed to one validated, frozen model."""
