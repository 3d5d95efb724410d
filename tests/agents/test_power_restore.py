"""The power agent's way back up: in steps, within budgets, after a restart too, no spinning."""

from tests.agents.scripted import NOTHING, PLAN, Rig, change, going_up, grid, planned


async def test_when_the_limit_ends_caps_rise_in_steps_within_the_budgets() -> None:
    """A plain release could break a budget; each step is verified before the next."""
    rig = Rig(get_change=change("succeeded", ended=True))
    await rig.steps(2)
    rig.servers.answers["grid_limit"] = grid()
    rig.servers.answers["plan_caps"] = planned(PLAN, going_up({"node-001": 600}, {"node-002": 650}))

    await rig.steps(8)

    assert [a["gpu_cap_w_by_node"] for a in rig.servers.asked("set_caps")[1:]] == [
        {"node-001": 600},
        {"node-002": 650},
    ]
    assert "1 more steps follow" in rig.servers.asked("set_caps")[1]["reason"]
    assert rig.servers.asked("release_caps") == []
    assert rig.agent.held_limit_w is None
    assert "restored" in rig.kinds()
    plans = len(rig.plans("up"))
    await rig.seconds(600)
    assert len(rig.plans("up")) == plans  # done is done


async def test_where_every_cap_goes_to_its_default_it_is_a_release() -> None:
    """Of the nodes of this step, and of no others."""
    rig = Rig(get_change=change("succeeded", ended=True))
    await rig.steps(2)
    rig.servers.answers["grid_limit"] = grid()
    rig.servers.answers["plan_caps"] = planned(
        PLAN, going_up({"node-002": 700, "node-001": 700}, releases=True)
    )

    await rig.steps(3)

    (asked,) = rig.servers.asked("release_caps")
    assert asked["node_ids"] == ["node-001", "node-002"]


async def test_caps_of_before_a_restart_are_found_and_taken_back() -> None:
    """The agent remembers nothing; the limits do."""
    rig = Rig(grid_limit=grid(), plan_caps=planned(PLAN, going_up({"node-007": 700})))
    await rig.steps(1)
    assert rig.servers.asked("set_caps")[0]["gpu_cap_w_by_node"] == {"node-007": 700}

    busy = Rig(get_change=change("succeeded", ended=True))  # started while a limit is in force
    await busy.steps(3)
    assert busy.plans("up") == [{"moves": "up", "site_limit_w": 400_000.0}]


async def test_a_looser_limit_lets_caps_rise_as_far_as_it_allows() -> None:
    """Not only its end."""
    rig = Rig(get_change=change("succeeded", ended=True))
    await rig.steps(3)
    rig.servers.answers["grid_limit"] = grid(450_000.0)
    rig.servers.answers["plan_caps"] = planned(NOTHING, going_up({"node-001": 500}))
    await rig.steps(2)

    assert rig.plans("up")[-1]["site_limit_w"] == 450_000.0
    assert rig.servers.asked("set_caps")[-1]["gpu_cap_w_by_node"] == {"node-001": 500}


async def test_a_limit_that_comes_while_a_step_up_waits_goes_before_it() -> None:
    """People may take their time with the restore; the grid does not."""
    rig = Rig(grid_limit=grid(), plan_caps=planned(PLAN, going_up({"node-007": 700})))
    await rig.steps(2)
    rig.servers.answers["grid_limit"] = grid(400_000.0)

    await rig.steps(1)

    assert rig.servers.asked("set_caps")[-1]["gpu_cap_w_by_node"] == {"node-001": 450}
    assert "left" in rig.kinds()


async def test_a_limit_that_comes_while_a_change_is_under_way_waits_for_its_end() -> None:
    """It holds a reservation: anything over the same nodes would be refused until then."""
    rig = Rig(
        grid_limit=grid(),
        plan_caps=planned(PLAN, going_up({"node-007": 700})),
        get_change=change("verifying"),
    )
    await rig.steps(2)
    rig.servers.answers["grid_limit"] = grid(400_000.0)
    await rig.steps(3)
    assert len(rig.servers.asked("set_caps")) == 1

    rig.servers.answers["get_change"] = change("succeeded", ended=True)
    await rig.steps(1)
    assert rig.servers.asked("set_caps")[-1]["gpu_cap_w_by_node"] == {"node-001": 450}


async def test_a_refused_step_up_does_not_spin() -> None:
    """Six hundred times until midnight is what it was."""
    again = planned(PLAN, {**PLAN, "gpu_cap_w_by_node": {"node-007": 700}})
    refused = change("refused", ended=True)
    rig = Rig(grid_limit=grid(), plan_caps=again, get_change=refused, set_caps=refused)
    await rig.seconds(4 * 3600)

    assert len(rig.servers.asked("set_caps")) < 35
    assert sum("dry_run" not in a for a in rig.servers.asked("set_caps")) == 1
