"""Measurements on generated video."""
