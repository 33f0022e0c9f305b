"""Training of the embedded models, in slices that resume. Plain torch: no Prefect, no Hydra."""
