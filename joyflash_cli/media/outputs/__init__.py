"""Files, streams and pipes that a run writes."""
