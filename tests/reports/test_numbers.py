"""Numbers as reports write them."""

from lesa_jax.reports.numbers import amount, mean_sd, number, scale


def test_numbers():
    assert [number(value) for value in (45.4, 999.0, 3272.4, 1e6)] == ["45.40", "999.00", "3272", "1e+06"]
    assert mean_sd(3272.4, 10.28) == "3272 +- 10"
    assert mean_sd(45.4, 0.1) == "45.40 +- 0.10"
    assert mean_sd(None, None) == "-"


def test_amounts():
    assert [amount(value, "tokens") for value in (0.0, 95_523.0, 1_390_000.0)] == ["0", "95.5K", "1.39M"]
    assert [amount(value, "seconds") for value in (1.25, 90.0)] == ["1.2 s", "0:01:30"]
    assert amount(4.78e12, "flops") == "4.78 TFLOP"


def test_an_axis_has_one_unit():
    assert scale(2e6, "tokens") == (1e6, "million tokens")
    assert scale(0.5, "seconds") == (1.0, "seconds")
