"""Workload power profiles by number; NVML and Redfish number them differently, and only here.

The number that DPS and Redfish use is that of NVML, DCGM and nvidia-smi plus three.
"""

from collections.abc import Iterable, Sequence
from typing import Final

REDFISH_OFFSET: Final = 3
MOST_PROFILES: Final = 255
_WORD_BITS: Final = 32

NAMES: Final = (
    "MAX_P",
    "MAX_Q",
    "COMPUTE",
    "MEMORY_BOUND",
    "NETWORK",
    "BALANCED",
    "LLM_INFERENCE",
    "LLM_TRAINING",
    "RBM",
    "DCPCIE",
    "HMMA_SPARSE",
    "HMMA_DENSE",
    "SYNC_BALANCED",
    "HPC",
    "MIG",
    "MAX_Q_1",
    "NETWORK_BOUND",
    "HIGH_THROUGHPUT_INFERENCE",
    "MEDIUM_THROUGHPUT_INFERENCE",
    "LOW_LATENCY_INFERENCE",
    "TRAINING",
    "INFERENCE",
    "MAX_Q_2",
    "MAX_Q_3",
    "LOW_PRIORITY_BACKGROUND",
)


def name_of(profile: int) -> str:
    """Its name; of a number that is newer than we are, the number."""
    return NAMES[profile] if 0 <= profile < len(NAMES) else f"profile {profile}"


def names_of(profiles: Iterable[int]) -> str:
    """Their names in one line."""
    return ", ".join(name_of(profile) for profile in sorted(profiles)) or "none"


def of_words(words: Sequence[int]) -> frozenset[int]:
    """The profiles of NVML's mask: words of 32 bits, the lowest first."""
    bits = sum((word & 0xFFFFFFFF) << (_WORD_BITS * place) for place, word in enumerate(words))
    return _of_bits(bits)


def of_redfish_mask(mask: str) -> frozenset[int]:
    """The profiles of a mask of a BMC in hex, in the numbers of NVML.

    Raises:
        ValueError: it is no mask, or has a bit below the first profile.
    """
    bits = int(mask, 16)
    if bits < 0 or bits & ((1 << REDFISH_OFFSET) - 1):
        raise ValueError(f"{mask} has a bit below {REDFISH_OFFSET}, the first profile")
    return _of_bits(bits >> REDFISH_OFFSET)


def to_redfish(profile: int) -> int:
    """The number that DPS and Redfish have for a profile of NVML."""
    return profile + REDFISH_OFFSET


def _of_bits(bits: int) -> frozenset[int]:
    return frozenset(place for place in range(MOST_PROFILES + 1) if bits >> place & 1)
