"""Numbers as people write them."""

from lesa_jax.base.units import short, short_rate


def test_numbers_are_short():
    assert [short(count) for count in (0, 950, 1500, 2e6, 1.25e9)] == ["0", "950", "1.5K", "2M", "1.25B"]
    assert [short_rate(rate) for rate in (7.2, 999.4, 1234.0, 12345.6, 456789.0, 2.5e6)] == [
        "7", "999", "1.23k", "12.3k", "457k", "2.50M",
    ]  # fmt: skip
