"""Switch extensions: classes that see packets at ingress and egress."""
