"""The stages of the pipeline: load, work, save."""
