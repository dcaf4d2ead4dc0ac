"""What a run keeps: the trajectory (Eq. 1), its utility (Eq. 3) and the arrays it refers to."""
