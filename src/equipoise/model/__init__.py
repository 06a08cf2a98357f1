"""Everything that runs a model."""
