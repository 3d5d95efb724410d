"""Log lines: a sentence that never changes, and what is special about this time behind it."""

import logging

from interlock_console.logs import KeyValueFormatter


def test_what_was_given_as_extra_stands_behind_the_sentence() -> None:
    """The sentence can be searched for; the values can be read."""
    record = logging.makeLogRecord({"msg": "the broker is gone", "broker": "mqtt://h:1883"})

    line = KeyValueFormatter("%(message)s").format(record)

    assert line == "the broker is gone broker='mqtt://h:1883'"


def test_plant_text_cannot_forge_a_second_line() -> None:
    """A newline in a value stays inside its quotes, and a long value is cut."""
    record = logging.makeLogRecord({"msg": "seen", "label": "a\nERROR forged" + "x" * 500})

    line = KeyValueFormatter("%(message)s").format(record)

    assert "\n" not in line
    assert len(line) < 300
