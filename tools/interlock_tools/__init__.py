"""The vocabulary of the house: what an operation is, before anyone performs it. No I/O."""
