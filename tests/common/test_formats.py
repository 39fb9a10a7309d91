import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import formats


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formats.percent(0.9543), "95.4%"),
        (formats.percent(None), "–"),
        (formats.percent(float("nan")), "–"),
        (formats.percent_range((0.9, 0.955)), "90.0–95.5"),
        (formats.percent_range((0.9, 0.955), sign=True), "90.0–95.5%"),
        (formats.signed(-0.0031, 4), "−0.0031"),
        (formats.signed_range((-0.01, 0.2), 2), "−0.01 to +0.20"),
        (formats.two_digits(0.00957), "0.0096"),
        (formats.two_digits(None), "–"),
        (formats.gate_number(0.98765), "0.9877"),
        (formats.gate_number(2.094), "2.09"),
        (formats.gate_number(None), "–"),
        (formats.compact(1_970_000), "1.97M"),
        (formats.compact(999_700), "1.00M"),
        (formats.compact(812), "812"),
        (formats.file_size(91_004), "91.0 kB"),
        (formats.duration(8.44), "8.4 s"),
        (formats.duration(59.7), "1 min 00 s"),
        (formats.duration(185), "3 min 05 s"),
        (formats.duration(7_800), "2 h 10 min"),
        (formats.short_duration(185), "3m05s"),
        (formats.rounded_duration(1), "5 s"),
        (formats.rounded_duration(48), "50 s"),
        (formats.rounded_duration(100), "2 min"),
        (formats.rounded_duration(3570), "1 h 00 min"),
        (formats.rounded_duration(7900), "2 h 10 min"),
        (formats.stopwatch(0), "0:00"),
        (formats.stopwatch(61.4), "1:01"),
        (formats.stopwatch(3599.6), "1:00:00"),
        (formats.stopwatch(-3), "0:00"),
        (formats.stopwatch(90061), "25:01:01"),
        (formats.milliseconds(0.281), "0.28 ms"),
        (formats.plural(1, "trial"), "1 trial"),
        (formats.plural(1200, "image"), "1,200 images"),
        (formats.value_text([1, 2.5, None]), "1, 2.5, –"),
        (formats.value_text(False), "no"),
        (formats.trim_zeros("50.0 kB"), "50 kB"),
        (formats.trim_zeros("5.05 MB"), "5.05 MB"),
        (formats.trim_zeros("5m00s"), "5m"),
        (formats.trim_zeros("100s"), "100s"),
        (
            formats.with_minus_signs("gains -0.01 on 2026-11-22, top-5"),
            "gains −0.01 on 2026-11-22, top-5",
        ),
    ],
)
def test_numbers_are_formatted_for_people(text: str, expected: str) -> None:
    assert text == expected


@given(st.integers(1, 999_000_000_000))
def test_compact_keeps_three_digits(value: int) -> None:
    text = formats.compact(value)
    scale = {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1], 1.0)
    assert float(text.rstrip("kMG")) * scale == pytest.approx(value, rel=0.0051)
    assert len(text) <= 5


@given(st.text(max_size=60), st.integers(4, 40))
def test_shorten_keeps_both_ends_within_the_width(text: str, width: int) -> None:
    short = formats.shorten(text, width)
    line = " ".join(text.split())
    assert len(short) <= width
    assert short == formats.shorten(short, width)
    assert short == line or (short[0] == line[0] and short[-1] == line[-1] and "…" in short)


@given(st.integers(2, 300), st.integers(12, 28))
def test_long_names_that_differ_in_their_middle_stay_distinct(count: int, width: int) -> None:
    names = [f"a rather long name, number {i:03d} of many classes" for i in range(count)]
    shortened = formats.shorten_all([*names, "cat", "", ""], width)
    assert len(set(shortened[:-2])) == count + 1
    assert max(map(len, shortened)) <= width
    assert shortened[-3:] == ["cat", "", ""]
