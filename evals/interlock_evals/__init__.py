"""Measures whether the house does the right thing, how often and how fast, and keeps its misses."""
