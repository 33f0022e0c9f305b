"""Operations and memory of a model, computed from its configuration on the meta device."""

from pathlib import Path

CONFIGURATIONS = Path(__file__).with_name("configurations")  # of the parts of published models, by their names
