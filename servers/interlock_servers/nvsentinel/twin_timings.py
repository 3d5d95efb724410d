"""How long NVSentinel takes, by what was measured upstream."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Timings:
    """Seconds on the plant's clock.

    Attributes:
        quarantine_s: from an event to the cordon; 1.8 s on upstream's test cluster.
        evict_again_s: between two tries where a budget refuses.
        not_ready_s: after which pods of a dark node are not waited for.
        delete_after_s: of the mode `DeleteAfterTimeout`.
        reset_s: of a GPUReset, 80 s in upstream's runbook, in five equal steps.
        reboot_s: assumed; the runbook's sample of 42 minutes is longer than `give_up_s`.
        terminate_s: assumed.
        give_up_s: after which a reboot or termination is a timeout.
        validate_s: of `dcgmi diag --run 2`; assumed.
        emit_again_s: between two tries of a MaintenanceRequest whose node is locked.
        repeat_s: after which a repeat offender breaks again.
        bootstrap_s: how long a false positive at bootstrap lasts.
        revert_s: after which another controller reverts a patch.
        ttl_s: how long a finished CR is kept, 336 h.
    """

    quarantine_s: float = 1.8
    evict_again_s: float = 10.0
    not_ready_s: float = 300.0
    delete_after_s: float = 3600.0
    reset_s: float = 80.0
    reboot_s: float = 900.0
    terminate_s: float = 300.0
    give_up_s: float = 1500.0
    validate_s: float = 120.0
    emit_again_s: float = 30.0
    repeat_s: float = 600.0
    bootstrap_s: float = 120.0
    revert_s: float = 5.0
    ttl_s: float = 336 * 3600.0
