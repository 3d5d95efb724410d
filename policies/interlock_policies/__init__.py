"""The policy: an operation and its facts in, a decision and its reason out. No clock and no I/O.

It never acts and never looks at the plant: the guard measures a `Situation` and asks `decide`.
"""
