"""The remediation agent, rule planner: from an ill node to its verified return to service.

It observes over MCP, judges by codes and checks, proposes the sanctioned way, and watches what
becomes of it. It never approves and never acts; a message of the plant is nothing that it obeys.
"""

from interlock_agents.remediation.agent import OBSERVE_EVERY_S, RemediationAgent
from interlock_agents.remediation.catalogue import Remedy
from interlock_agents.remediation.deciding import REPEATS, Step
from interlock_agents.remediation.room import SHARE

__all__ = ["OBSERVE_EVERY_S", "REPEATS", "SHARE", "RemediationAgent", "Remedy", "Step"]
