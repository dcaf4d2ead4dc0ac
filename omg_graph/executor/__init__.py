"""The executor pi_E: autoencoders, anchor, denoiser, sampling, objective and task head (section 3.5)."""
