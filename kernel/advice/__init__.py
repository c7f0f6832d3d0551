"""What the kernel decided and why, what it advises from that, and when it raises an alert."""
