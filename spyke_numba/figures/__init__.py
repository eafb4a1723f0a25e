"""Pictures of runs and of models."""
