"""Trained floors, the paper's tables, ablations, the study, tuning, planner reports. Nothing imports it."""
