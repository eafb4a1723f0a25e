"""Firing patterns and rates of the models."""
