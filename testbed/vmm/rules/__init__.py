"""What each order does in its transaction, or why it is refused (testbed.vmm.refusals)."""
