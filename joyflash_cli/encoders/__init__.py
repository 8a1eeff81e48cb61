"""Frozen towers: audio, text, image, face."""
