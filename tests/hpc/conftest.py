"""What the tests of the control plane share: the batch system, one for all of them."""

from collections.abc import Iterator

import pytest
from hpc.slurm import Slurm, run_slurm, why_not


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A real Slurm of this session; its users pass on `slurm.env`."""
    if reason := why_not():
        pytest.skip(f"no Slurm here: {reason}")
    with run_slurm() as running:
        yield running
