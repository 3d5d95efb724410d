"""What is known of a cluster, as the modules' own objects show it."""

from tests.servers.nvsentinel.conftest import following
from tests.servers.nvsentinel.world import AheadClock, World


async def test_a_true_condition_of_a_monitor_is_a_fault(world: World, clock: AheadClock) -> None:
    """The opposite of Ready; and any name will do that a policy has given it."""
    await world.node("n-1", faults={"OurOwnPolicyOfFans": "fan 3 stands still"})
    async with following(world.settings(), clock) as client:
        node = client.nodes.get("n-1")
        assert [one.type for one in node.faults] == ["OurOwnPolicyOfFans"]
        assert node.healthy == ("GpuThermalWatch",)
        assert node.ready is True
