"""A simulated day of a site, unattended: what happens, what was done about it, and what was not.

Everything on our side is what ships: guard, policy, worker, ledger, allocator, servers and power
agent. The twins speak MQTT and gRPC; the agent's MCP connections are in memory. One clock is
stepped, and waits for whoever has something to do at that moment.
"""
