"""What was found while a reader was told lies: counts, and a sentence for what is wrong."""

from collections import Counter
from dataclasses import dataclass, field

MAX_SENTENCES = 50


@dataclass
class Found:
    """What was found.

    Attributes:
        messages: by kind.
        taken: how many were taken in.
        rejected: by the reason that was named.
        crashes: messages on which the reader raised.
        wrong: things that were shown and must not be, or must be shown and were not.
        misjudged: messages that were taken and must not be, or the other way round.
        unnamed: rejections without a reason, or with one that is not right.
        sentences: the first of them in words.
    """

    messages: Counter[str] = field(default_factory=Counter)
    taken: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    shown: int = 0
    crashes: int = 0
    wrong: int = 0
    misjudged: int = 0
    unnamed: int = 0
    sentences: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many messages."""
        return self.messages.total()

    @property
    def clean(self) -> bool:
        """Whether nothing is amiss."""
        return not (self.crashes or self.wrong or self.misjudged or self.unnamed)

    def note(self, key: str, sentence: str) -> None:
        """Count what is amiss, and say it."""
        setattr(self, key, getattr(self, key) + 1)
        if len(self.sentences) < MAX_SENTENCES:
            self.sentences.append(f"{key}: {sentence}")
