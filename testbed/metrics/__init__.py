"""What labs count, in the form that Prometheus reads."""
