"""A trace is read exactly or refused by line number; a half-read trace is a wrong load."""

import numpy as np
import pytest

from interlock_evals.twin import data_from_environment
from interlock_plant import RequestTrace, parse_trace
from interlock_tools.errors import InvalidRequestError

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
GOOD = f"""{HEADER}
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
"""


def test_a_published_trace_is_read_as_it_is() -> None:
    """The first rows of the Azure conversation trace, seven digits of a second and all."""
    trace = parse_trace(GOOD)
    assert trace.arrival_s == pytest.approx([0.0, 4.314579, 4.541877], abs=1e-5)
    assert trace.context_tokens.tolist() == [374, 396, 879]
    assert trace.generated_tokens.tolist() == [44, 109, 55]


def test_text_lines_and_dos_line_ends_read_the_same() -> None:
    """A trace may come from a file, a string or an archive; it is the same trace."""
    plain = parse_trace(GOOD)
    for variant in (
        parse_trace(GOOD.splitlines(keepends=True)),
        parse_trace(GOOD.replace("\n", "\r\n")),
        parse_trace("\ufeff" + GOOD),
        parse_trace(GOOD.replace("00,", "00+00:00,").replace("90,", "90+00:00,")),
    ):
        assert np.array_equal(variant.arrival_s, plain.arrival_s)


ROW = "2023-11-16 18:15:46.6805900,374,44"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the trace is empty"),
        ("\n", "line 1: the trace is empty"),
        (HEADER, "line 2: the trace has a header and no rows"),
        (ROW, "line 1: expected the header"),
        (f"{HEADER}\n{ROW},9", "line 2: expected 3 fields, found 4"),
        (f"{HEADER}\n{ROW}\n\n{ROW}", "line 3: expected 3 fields, found 1"),
        (f"{HEADER}\nyesterday,374,44", "line 2: TIMESTAMP 'yesterday' is not a date"),
        (f"{HEADER}\n2023-13-16 18:15:46,374,44", "line 2: TIMESTAMP"),
        (f"{HEADER}\n{ROW}\n2023-11-16 18:15:45,374,44", "line 3: TIMESTAMP is earlier"),
        (f"{HEADER}\n2023-11-16 18:15:46,many,44", "line 2: ContextTokens 'many'"),
        (f"{HEADER}\n2023-11-16 18:15:46,374,-1", "line 2: GeneratedTokens '-1'"),
        (f"{HEADER}\n2023-11-16 18:15:46,374,4.5", "line 2: GeneratedTokens '4.5'"),
        (f"{HEADER}\n2023-11-16 18:15:46,374,nan", "line 2: GeneratedTokens 'nan'"),
        (f"{HEADER}\n2023-11-16 18:15:46,374,", "line 2: GeneratedTokens ''"),
        (f"{HEADER}\n{ROW}\n2032-11-16 18:15:46,374,44", "spans more than 31 days"),
    ],
)
def test_a_malformed_trace_is_refused_with_its_line(text: str, message: str) -> None:
    """Whoever sent 19,000 rows needs to know which one is wrong, and what with it."""
    with pytest.raises(InvalidRequestError, match=message):
        parse_trace(text)


def test_columns_that_disagree_are_refused() -> None:
    """Arrays may be handed in directly, past the parser."""
    one, two = np.zeros(1), np.zeros(2)
    with pytest.raises(InvalidRequestError, match="equally long"):
        RequestTrace(arrival_s=one, context_tokens=two, generated_tokens=one)
    with pytest.raises(InvalidRequestError, match="order of arrival"):
        RequestTrace(arrival_s=np.array([1.0, 0.0]), context_tokens=two, generated_tokens=two)
    with pytest.raises(InvalidRequestError, match="negative or non-finite"):
        RequestTrace(arrival_s=one, context_tokens=one - 1.0, generated_tokens=one)


@pytest.mark.parametrize(
    ("name", "prefill", "decode"),
    [
        ("conv", (5.2, 2.6, 1.9), (3.2, 1.7, 1.3)),
        ("code", (25.0, 13.0, 4.3), (30.0, 12.0, 3.9)),
    ],
)
def test_the_published_traces_are_as_bursty_as_is_known_of_them(
    name: str, prefill: tuple[float, ...], decode: tuple[float, ...]
) -> None:
    """Peak over mean at 1, 10 and 60 s: what a serving row must bear, read by our parser."""
    data = data_from_environment()
    if data is None:
        pytest.skip("INTERLOCK_DATA does not name the folder of public data")
    trace = parse_trace(data.text(f"azure_llm_2023_{name}.csv"))
    for tokens, expected in ((trace.context_tokens, prefill), (trace.generated_tokens, decode)):
        ratios = []
        for window_s in (1, 10, 60):
            count = int(trace.arrival_s[-1] // window_s)
            place = (trace.arrival_s // window_s).astype(np.int64)
            sums = np.bincount(place, weights=tokens)[:count]
            ratios.append(float(sums.max() / sums.mean()))
        assert ratios == pytest.approx(expected, rel=0.1)
