"""Weights: the manifest, the store, state dicts and conversion."""
