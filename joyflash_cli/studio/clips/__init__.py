"""Talking heads to train on."""
