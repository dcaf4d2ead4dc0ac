"""What planners cost and how good their plans are: the planner report."""
