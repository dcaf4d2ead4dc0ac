"""A person in the loop: the review of plans, edits of a run, and forks of a finished one."""
