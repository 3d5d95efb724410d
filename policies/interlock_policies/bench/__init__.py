"""The policy bench: what a policy answers, what it must never answer, and whether we would notice.

It asks the same gate that decides in earnest, and changes nothing.
"""
