"""SGLang frontend programs: questions answered with the effort they deserve, diffs reviewed, functions called."""
