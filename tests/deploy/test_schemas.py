"""Every object is valid for the oldest and the newest Kubernetes that we support."""

import subprocess
from pathlib import Path

import pytest
import yaml
from deploy.rendered import OVERLAYS, render, why_no_kubectl

VALIDATE = Path(__file__).parents[2] / ".cache" / "deploy" / "bin" / "kubernetes-validate"
OLDEST, NEWEST = "1.27", "1.37"
"""`unhealthyPodEvictionPolicy` is there since 1.27; 1.37 is the newest that kubernetes-validate 1.37.0 knows."""


@pytest.mark.skipif(bool(why_no_kubectl()), reason=why_no_kubectl())
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_schemas(version, tmp_path):
    """No unknown field, none of the wrong type."""
    if not VALIDATE.exists():
        pytest.skip("kubernetes-validate is not installed; `make test-deploy` does that")
    # What overlays share is checked once.
    objects = {yaml.safe_dump(each): None for overlay in (*OVERLAYS, "production-backup") for each in render(overlay)}
    file = tmp_path / "rendered.yaml"
    file.write_text("---\n".join(objects))
    told = subprocess.run(
        [VALIDATE, "--strict", "-k", f"{version}.0", file], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert (told.stdout + told.stderr).count(" passed ") == len(objects)
