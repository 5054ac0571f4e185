"""Several processes as one run."""

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.parallel.processes import join_processes


def test_half_a_set_of_coordinates_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
    with pytest.raises(InputError, match="JAX_NUM_PROCESSES is not set"):
        join_processes()
