"""Enforces: gathers facts, asks the policy, waits for people, acts, verifies, writes the ledger."""
