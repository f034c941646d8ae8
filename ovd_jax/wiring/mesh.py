"""The devices of a program: its processes and its mesh."""

import functools
from collections.abc import Callable

import jax

from ovd_jax.models.sharding import make_mesh
from ovd_jax.multihost.fate import shared_fate
from ovd_jax.multihost.processes import check_devices, check_same, connect


def on_mesh(main: Callable) -> Callable:
    """A decorator: runs `main(config)` with the processes and the mesh of the
    config."""

    @functools.wraps(main)
    def run(config):
        connect(**config.distributed)
        check_devices()
        with shared_fate():
            return run_together(config)

    def run_together(config):
        shared = config.to_dict()
        del shared["distributed"]
        check_same("config", shared)
        with jax.set_mesh(make_mesh(**config.mesh)):
            return main(config)

    return run
