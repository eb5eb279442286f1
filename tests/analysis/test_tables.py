"""Numbers in words."""

from dreamer_bird.analysis.tables import comparison_parts, number, spread, steps

PARTING = (("kl", 5000), ("model_loss", None))


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


def test_only_training_metrics_that_part_are_in_the_table():
    metrics = [{"key": key, "first": 1.0, "second": 2.0, "step": step} for key, step in PARTING]
    task = {"task": "t", "range": [0, 9], "late": [7, 9], "at": [], "methods": [], "scores": []}
    task |= {"published": [], "differences": [{"first": "a", "second": "b", "metrics": metrics}]}
    *_, part = comparison_parts({"key": None, "tasks": [task], "across": None})
    assert part.rows == [("kl", "1", "2", "5k")]
    task["differences"][0]["metrics"] = metrics[1:]
    *_, part = comparison_parts({"key": None, "tasks": [task], "across": None})
    assert part.text == "training metrics of a and b: none parts for good"
