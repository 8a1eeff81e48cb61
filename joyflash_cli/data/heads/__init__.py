"""Parametric talking heads."""
