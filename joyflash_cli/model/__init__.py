"""Pure torch modules: mechanism, no policy."""
