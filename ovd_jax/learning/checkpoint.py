"""Saving and restoring a `TrainState`, whole or not at all."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp

from ovd_jax.learning.update import TrainState


class Checkpoints:
    """The newest `keep` states of a run, in `run_dir/checkpoints`.

    Orbax writes into a temporary folder and renames it, so that a process killed while
    saving leaves the checkpoint before. Nothing but the state is stored: randomness and
    data order are functions of the seed and `state.step`.
    """

    def __init__(self, run_dir, *, every: int, keep: int = 2):
        self.every = every
        self.manager = ocp.CheckpointManager(
            Path(run_dir).absolute() / "checkpoints",
            options=ocp.CheckpointManagerOptions(max_to_keep=keep),
        )

    def save(self, state: TrainState, *, unit: int = 1, force: bool = False) -> None:
        """Saves in the background when `every` * `unit` optimizer steps have gone
        by."""
        step = int(state.step)
        due = self.every > 0 and step % (self.every * unit) == 0
        if (due or force) and step not in self.manager.all_steps():
            self.manager.save(step, args=ocp.args.StandardSave(by_path(state)))

    def restore_latest(self, state: TrainState) -> TrainState:
        """The newest saved state, in the layout of `state`; `state` itself if none.

        Raises ValueError where the checkpoint is of another model or optimizer.
        """
        step = self.manager.latest_step()
        if step is None:
            return state
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, by_path(state))
        try:
            saved = self.manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"The checkpoint in {self.manager.directory} does not fit this config: "
                f"{error}. Use another run_dir, or the config it was made with."
            ) from error
        treedef = jax.tree.structure(state)
        return jax.tree.unflatten(treedef, [saved[name] for name in by_path(state)])

    def close(self) -> None:
        """Waits for the saves under way."""
        self.manager.wait_until_finished()
        self.manager.close()


def by_path(state: TrainState) -> dict[str, jax.Array]:
    """Every array of the state under its path, in tree order."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }
