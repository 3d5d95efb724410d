"""What is killed, full, gone or late, and what must hold all the same."""
