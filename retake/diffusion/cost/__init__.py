"""Operations and memory of a model, computed from its configuration on the meta device."""
