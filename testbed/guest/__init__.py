"""What runs inside a VM of the testbed's own image, beside what its owner runs there."""
