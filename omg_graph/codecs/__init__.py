"""Codecs: each modality's way from the input's units to latents and back."""
