"""A bus that lies: millions of messages, and a judge of what a reader makes of them."""
