"""Qwen2.5-Omni's thinker: its weights, and what it reads of text, sound, images and video."""
