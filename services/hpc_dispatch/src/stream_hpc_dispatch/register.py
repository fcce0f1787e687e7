"""`python -m stream_hpc_dispatch.register CLUSTER`: registers the function that starts workers; prints its id.

For an endpoint that allows only some functions: its operator puts the id into the endpoint's `allowed_functions`, and
it stands in `stream.yaml` as `function_id` of the cluster. To be done again when an update says so.
"""

import sys

from stream_core.errors import ConfigError
from stream_core.settings import read_deployment
from stream_hpc_dispatch.clusters import globus_pilot


def register(cluster: str) -> str:
    """Register the function as the client of a cluster of `STREAM_CONFIG`; its id.

    Raises:
        ConfigError: there is no such cluster, it is of another backend, or the service refuses.
    """
    config = next((one for one in read_deployment().clusters if one.name == cluster), None)
    if config is None or config.globus is None:
        raise ConfigError(f"no cluster {cluster!r} of backend 'globus' in the deployment", param="clusters")
    try:
        from stream_hpc_dispatch.clusters.globus_service import ComputeService, ServiceFault  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"backend 'globus' needs the extra stream-hpc-dispatch[globus] ({error})") from error
    try:
        service = ComputeService(config.globus, f"clusters.{cluster}.globus")
        return service.register(globus_pilot.source(), globus_pilot.FUNCTION)
    except ServiceFault as fault:
        raise ConfigError(fault.words, param=f"clusters.{cluster}.globus") from fault


def main() -> None:
    """Entry point."""
    if len(sys.argv) != 2:  # noqa: PLR2004  (the program and one argument)
        sys.exit("usage: python -m stream_hpc_dispatch.register CLUSTER")
    try:
        sys.stdout.write(f"{register(sys.argv[1])}\n")
    except ConfigError as error:
        sys.exit(f"{error.param}: {error.message}" if error.param else error.message)


if __name__ == "__main__":
    main()
