"""What a re-fit promises: what is measured is believed, what is not stays as wide as it was."""

import numpy as np
import pytest

from interlock_servers.maxlps.allocator.evidence import Evidence
from interlock_servers.maxlps.allocator.plan import CapPlan, HostPower, plan
from interlock_servers.maxlps.allocator.problem import Leaves
from interlock_servers.maxlps.allocator.refit import (
    FORM_ERROR,
    POWER_ERROR,
    Prior,
    refit,
)
from interlock_servers.maxlps.allocator.tree import PowerTree, TreeNode
from interlock_tools.errors import InvalidRequestError
from interlock_tools.power_curve import CurveParameters, throughput

PRIOR = Prior(natural_w=600.0)
CAPS_W = (700.0, 600.0, 550.0, 500.0, 450.0, 400.0, 350.0)


def samples(
    rng: np.random.Generator,
    natural_w: float,
    p0: float,
    gamma: float,
    caps_w: tuple[float, ...] = CAPS_W,
    each: int = 20,
    noise: float = 0.03,
) -> Evidence:
    """Noisy samples of a known kind of work, with errors that do not average out."""
    cap = np.repeat(caps_w, each)
    form = np.repeat(rng.normal(0, FORM_ERROR, len(caps_w)), each)
    sensor = np.repeat(rng.normal(0, POWER_ERROR, len(caps_w)), each)
    work = throughput(cap, natural_w, p0, gamma)
    rate = 7.3 * work * np.exp(form + rng.normal(0, noise, len(cap)))
    drawn = np.minimum(natural_w, 0.99 * cap)
    power = drawn * np.exp(sensor + rng.normal(0, 0.02, len(cap)))
    return Evidence.of(cap, power, np.maximum(rate, 1e-9))


@pytest.mark.parametrize(
    ("natural_w", "curve"),
    [
        (620.0, CurveParameters(0.0, 0.61)),  # audited, H200
        (560.0, CurveParameters(0.42, 0.29)),  # median of public sweeps: far from the prior
        (640.0, CurveParameters(0.0, 0.70)),
    ],
)
def test_known_draw_and_curve_are_recovered(natural_w: float, curve: CurveParameters) -> None:
    """On both curve sets, from a sweep of 140 noisy samples."""
    fit = refit(PRIOR, samples(np.random.default_rng(1), natural_w, *curve))
    assert fit.draw_w.value == pytest.approx(natural_w, rel=0.02)
    for share in (0.6, 0.7, 0.8, 0.9):
        told = fit.work_at_share(share)
        truth = float(throughput(share, 1.0, *curve))
        assert told.value == pytest.approx(truth, abs=0.035)
        assert told.high - told.low < 0.12
    assert fit.learned["draw"] > 0.9
    assert fit.learned["curve"] > 0.8


def test_the_interval_covers_the_truth_nine_times_in_ten() -> None:
    """Truths are drawn from the prior, so that the count is a test of the arithmetic."""
    base, rng, rounds = refit(PRIOR), np.random.default_rng(0), 100
    hits = dict.fromkeys(("draw", "work", "promise"), 0)
    for _ in range(rounds):
        at = rng.choice(len(base.weight), p=base.weight)
        natural_w = base.natural_w[at] * np.exp(rng.normal(0, 0.01))
        curve = (base.p0[at], base.gamma[at])
        fit = refit(PRIOR, samples(rng, natural_w, *curve))
        draw, work = fit.draw_w, fit.work_at_share(0.7)
        hits["draw"] += draw.low <= natural_w <= draw.high
        hits["work"] += work.low <= float(throughput(0.7, 1.0, *curve)) <= work.high
        hits["promise"] += float(throughput(fit.promise_w(0.9), natural_w, *curve)) >= 0.9 - 1e-9
    # Three standard deviations of a share of 100.
    assert hits["draw"] / rounds == pytest.approx(0.90, abs=0.09)
    assert hits["work"] / rounds == pytest.approx(0.90, abs=0.09)
    assert hits["promise"] / rounds >= 0.95 - 0.065


def test_samples_that_do_not_follow_the_form_widen_the_interval() -> None:
    """A knee and a cliff, as on an A40: no curve of ours fits, and the interval has to say so."""
    caps = np.array([125.0, 150, 175, 200, 225, 250, 275, 300])
    power = np.array([119.0, 142, 161, 182, 201, 209, 217, 219])
    rate = np.array([0.506, 0.769, 0.929, 0.969, 0.974, 0.991, 0.991, 1.0])
    fit = refit(Prior(270.0, 0.2), Evidence.of(caps, power, rate))
    assert fit.form_error > 1.2 * FORM_ERROR
    told = fit.work(150.0)
    assert told.low < 0.769 < told.high


def test_caps_above_the_draw_teach_the_draw_and_nothing_of_the_curve() -> None:
    """However many samples there are."""
    seen = samples(np.random.default_rng(2), 520.0, 0.0, 0.61, caps_w=(700.0, 650.0), each=5_000)
    fit, prior = refit(PRIOR, seen), refit(PRIOR)
    assert fit.draw_w.value == pytest.approx(520.0, rel=0.02)
    told, before = fit.work_at_share(0.7), prior.work_at_share(0.7)
    assert told.value == pytest.approx(before.value, abs=0.01)
    assert told.high - told.low > 0.95 * (before.high - before.low)
    assert fit.learned["curve"] < 0.05


def test_one_cap_or_few_samples_leave_the_interval_wide() -> None:
    """One level has no second to be compared with, and three samples are no sweep."""
    rng, prior = np.random.default_rng(3), refit(PRIOR)
    width = prior.work_at_share(0.7).high - prior.work_at_share(0.7).low
    alone = refit(PRIOR, samples(rng, 600.0, 0.0, 0.61, caps_w=(450.0,), each=5_000))
    told = alone.work_at_share(0.7)
    assert told.high - told.low > 0.8 * width
    assert alone.draw_w.high - alone.draw_w.low > 80.0
    few = refit(PRIOR, samples(rng, 600.0, 0.0, 0.61, caps_w=(700.0, 450.0), each=1, noise=0.1))
    sweep = refit(PRIOR, samples(rng, 600.0, 0.0, 0.61))
    spans = [f.work_at_share(0.7).high - f.work_at_share(0.7).low for f in (few, sweep)]
    assert spans[0] > 1.3 * spans[1]


def test_more_of_the_same_cap_never_makes_it_certain() -> None:
    """The error of sensor and form is one for each cap: a million samples do not remove it."""
    seen = samples(np.random.default_rng(4), 600.0, 0.0, 0.61, each=5_000)
    fit = refit(PRIOR, seen)
    assert fit.draw_w.high - fit.draw_w.low > 600.0 * POWER_ERROR
    assert fit.work_at_share(0.7).high - fit.work_at_share(0.7).low > 0.5 * FORM_ERROR


def test_a_draw_far_from_the_prior_is_believed() -> None:
    """Decode at low batch draws 200 of 700 W: a cap above that saves nothing."""
    caps = (700.0, 500.0, 300.0, 180.0, 150.0)
    fit = refit(PRIOR, samples(np.random.default_rng(5), 200.0, 0.0, 0.7, caps_w=caps))
    assert fit.draw_w.value == pytest.approx(200.0, rel=0.03)
    assert fit.draw_w.low < 200.0 < fit.draw_w.high


def test_a_promise_is_planned_at_the_pessimistic_end() -> None:
    """The cap that a plan gives is the one that keeps it with 95 %, not the mean's."""
    fit = refit(PRIOR, samples(np.random.default_rng(6), 600.0, 0.0, 0.61, each=3))
    robust = fit.robust(0.9)
    assert fit.promise_w(0.9) > fit.cap_for(0.9).value
    leaves = Leaves.of(
        natural_w=[robust.natural_w] * 2,
        p0=robust.p0,
        gamma=robust.gamma,
        lo_w=200.0,
        hi_w=700.0,
        floor_work=[robust.floor_work, 0.0],
    )
    tree = PowerTree.from_nodes([TreeNode("site", None, 950.0)], ["site"] * 2)
    answer = plan(tree, leaves, host=HostPower(0.0, 1.0), margin=0)
    assert isinstance(answer, CapPlan)
    assert answer.cap_w[0] >= fit.promise_w(0.9) * (1 - 1e-9)
    assert fit.robust(1.0).natural_w >= fit.promise_w(1.0)
    assert fit.robust().natural_w == fit.draw_w.value
    with pytest.raises(InvalidRequestError, match="floor_work"):
        fit.robust(1.1)


def test_samples_add_up_as_they_come_and_old_ones_can_be_forgotten() -> None:
    """The sums of two halves are the sums of the whole; after a change the old draw fades."""
    rng = np.random.default_rng(7)
    cap, power, rate = (rng.uniform(300, 700, 200) for _ in range(3))
    whole = Evidence.of(cap, power, rate)
    halves = Evidence.of(cap[:90], power[:90], rate[:90]).with_newer(
        Evidence.of(cap[90:], power[90:], rate[90:])
    )
    for name, column in vars(whole).items():
        np.testing.assert_allclose(getattr(halves, name), column, rtol=1e-9, atol=1e-12)
    old = samples(rng, 500.0, 0.0, 0.61, caps_w=(700.0,))
    new = samples(rng, 600.0, 0.0, 0.61, caps_w=(700.0,))
    assert refit(PRIOR, old.with_newer(new, keep=0.0)).draw_w.value == pytest.approx(600, rel=0.05)
    assert refit(PRIOR, old.with_newer(new, keep=0.01)).draw_w.value > 580
    assert old.with_newer(new, keep=0.5).samples == pytest.approx(30.0)


def test_without_samples_the_prior_answers() -> None:
    """And says that nothing was learned."""
    fit = refit(PRIOR)
    assert fit.learned == {"draw": 0.0, "curve": 0.0}
    assert (fit.samples, fit.bins) == (0.0, 0)
    assert fit.draw_w.low < 540 < 660 < fit.draw_w.high
    curve = fit.work_at_share(0.7)
    for published in (0.81, 0.805, 0.779):  # sweeps' median, audited H200 offline and server
        assert curve.low < published < curve.high


def test_what_is_no_sample_is_refused_by_name() -> None:
    """The column and the first sample are named."""
    for columns, told in (
        (([700.0], [float("nan")], [1.0]), "power_w: must be numbers above 0, sample 0"),
        (([700.0, 0.0], [1.0, 1.0], [1.0, 1.0]), "cap_w: .* sample 1"),
        (([700.0], [1.0], [-1.0]), "throughput"),
        (([700.0], [1.0, 2.0], [1.0]), "as many"),
    ):
        with pytest.raises(InvalidRequestError, match=told):
            Evidence.of(*columns)
    with pytest.raises(InvalidRequestError, match="natural_w"):
        refit(Prior(natural_w=-1.0))
    with pytest.raises(InvalidRequestError, match="gamma"):
        refit(Prior(600.0, curve=CurveParameters(0.0, 1.0)))
    seen = Evidence.of([700.0], [600.0], [1.0])
    with pytest.raises(InvalidRequestError, match="keep"):
        seen.with_newer(seen, keep=2.0)
