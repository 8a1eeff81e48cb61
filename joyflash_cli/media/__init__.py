"""Audio in, pictures in, video out."""
