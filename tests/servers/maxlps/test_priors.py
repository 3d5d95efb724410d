"""What is assumed of work before it is measured."""

import pytest

from interlock_servers.maxlps.priors import PRIORS, UNKNOWN, prior_of
from interlock_tools.errors import InvalidRequestError
from interlock_tools.power_curve import DECODE, FLOOR_RATIO, TRAINING, throughput


@pytest.mark.parametrize(
    ("workload_class", "share"),
    [("train", 0.90), ("prefill", 0.95), ("batch", 0.95), ("serving", 0.874), ("dev", 0.45)],
)
def test_each_class_has_its_share_of_tdp_and_a_source(workload_class: str, share: float) -> None:
    """A number without a source is not a prior."""
    prior = prior_of(workload_class)
    assert prior.natural_share == pytest.approx(share)
    assert prior.source


def test_serving_draws_with_its_load() -> None:
    """The measured line, and nothing outside it."""
    serving = prior_of("serving")
    assert serving.share_at(0.0) == pytest.approx(0.590)
    assert serving.share_at(0.5) == pytest.approx(0.732)
    for outside in (-0.1, 1.1):
        with pytest.raises(InvalidRequestError):
            serving.share_at(outside)


def test_latency_bound_work_loses_more_under_a_cap() -> None:
    """That decode tolerates capping is only true of caps that do not bind."""
    assert prior_of("serving").curve == DECODE
    assert prior_of("train").curve == TRAINING
    assert prior_of("serving").gamma > prior_of("train").gamma


@pytest.mark.parametrize("workload_class", [None, "", "quantum"])
def test_work_that_nobody_named_is_taken_to_draw_its_full_rating(
    workload_class: str | None,
) -> None:
    """The careful side: it draws as much, and loses as much, as any."""
    assert prior_of(workload_class) == UNKNOWN
    for known in PRIORS.values():
        assert UNKNOWN.natural_share >= known.natural_share
        assert UNKNOWN.gamma >= known.gamma


def test_every_prior_fits_the_curve() -> None:
    """The curve ends at half of natural draw; every prior still works there."""
    for name, prior in PRIORS.items():
        natural_w = 700.0 * prior.natural_share
        at_floor = throughput(FLOOR_RATIO * natural_w, natural_w, prior.p0, prior.gamma)
        assert 0 < float(at_floor) < 1, name
        assert 0 < prior.natural_share <= 1, name
