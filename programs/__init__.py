"""SGLang frontend programs for Small 4; this release has none yet: it serves the model."""
