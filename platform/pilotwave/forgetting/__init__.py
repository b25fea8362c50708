"""Forgetting: takes records out of run directories, MLflow and the project archive, and says which should go."""
