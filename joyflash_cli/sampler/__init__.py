"""The paper's sampler: one file per idea."""
