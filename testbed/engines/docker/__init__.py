"""The docker engine: nodes are containers of a Docker Engine on this machine."""
