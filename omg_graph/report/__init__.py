"""The trace as a page: one file that opens offline and tells what happened to each sample."""
