"""The host process: control (policy, PA space, requests) and its switch worker."""
