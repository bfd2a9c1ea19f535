"""A host's side of the VMM: HTTP, the watch that keeps its policy in step, what it reports."""
