"""Numbers in words."""

from dreamer_bird.analysis.tables import number, spread, steps


def test_numbers_as_they_are_written():
    assert [number(value) for value in (None, 0, 0.01234, 1.234, 56.78, 678.9, 11_297.4, -3.0)] == [
        "-",
        "0",
        "0.0123",
        "1.23",
        "56.8",
        "679",
        "11,297",
        "-3.00",
    ]
    assert [steps(value) for value in (None, 5000, 25_000, 105_000, 1_005_000)] == [
        "-",
        "5k",
        "25k",
        "105k",
        "1.005M",
    ]
    assert spread({"mean": 612.3, "std": 4.56, "seeds": 5}) == "612 ± 5 (5)"
    assert spread({"mean": 11.23, "std": 22.4, "seeds": 5}) == "11 ± 22 (5)"
    assert spread({"mean": 11.23, "std": 0.42, "seeds": 5}) == "11.2 ± 0.4 (5)"
    assert spread({"mean": 612.3, "std": None, "seeds": 1}) == "612 (1)"
    assert spread({"mean": 612.3, "std": None, "seeds": 5}) == "~612 (5)"
    assert spread({"mean": None, "std": None, "seeds": 0}) == "-"
