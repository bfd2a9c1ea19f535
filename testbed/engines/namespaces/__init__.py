"""The embedded engine: nodes are plain Linux namespaces, no daemon needed."""
