"""Codec, teacher and generator training."""
