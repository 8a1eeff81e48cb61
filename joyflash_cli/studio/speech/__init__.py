"""Speech of known phonemes: recorded, synthesised and aligned."""
