"""Saves and restores a `TrainState` atomically."""

import asyncio
import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from ovd_jax.errors import UserError
from ovd_jax.learning.update import TrainState
from ovd_jax.models.lora import trainable, with_trainable
from ovd_jax.models.transformer import Transformer


class Checkpoints:
    """The newest `keep` states of a run, in `run_dir/checkpoints`.

    Orbax writes into a temporary folder and renames it, so a process killed while
    saving leaves the previous checkpoint. Only the state is stored, and only the
    trainable part of its model: randomness and data order are functions of the seed and
    `state.step`, and frozen weights are read from their source. Each save first calls
    `before_save`, which must put on the disk what a resumed run needs, and
    `save_beside(step, forced)` with the optimizer steps of the state.
    """

    def __init__(self, run_dir, *, every: int, keep: int = 2):
        self.every = every
        self.before_save: Callable[[], None] = lambda: None
        self.save_beside: Callable[[int, bool], None] = lambda step, forced: None
        self.manager = ocp.CheckpointManager(
            Path(run_dir).absolute() / "checkpoints",
            options=ocp.CheckpointManagerOptions(max_to_keep=keep),
            item_handlers=ocp.StandardCheckpointHandler(),
        )

    @property
    def exist(self) -> bool:
        """True if there is a checkpoint to resume from."""
        return bool(self.manager.all_steps())

    def due(self, state: TrainState, *, unit: int = 1) -> bool:
        """True every `every` * `unit` optimizer steps."""
        return self.every > 0 and int(state.step) % (self.every * unit) == 0

    def save(self, state: TrainState, *, unit: int = 1, force: bool = False) -> None:
        """Saves in the background if the state is `due`."""
        step = int(state.step)
        due = force or self.due(state, unit=unit)
        if due and step not in self.manager.all_steps():
            self.before_save()
            self.save_beside(step, force)
            self.manager.save(step, args=ocp.args.StandardSave(by_path(state)))

    def restore_latest(self, state: TrainState) -> TrainState:
        """The newest readable state, in the layout of `state`; `state` itself without
        one.

        Newer, damaged checkpoints are deleted with a warning: training reaches and
        saves the same states again. Raises UserError, and deletes nothing, if none can
        be read or one does not fit `state`.
        """
        abstract = _abstract(state)
        saved, damaged = _newest(
            self.manager, abstract, ocp.args.StandardRestore(abstract), whole=True
        )
        for step in damaged:
            self.manager.delete(step)
        if damaged:
            warnings.warn(
                f"Deleted checkpoints in {self.manager.directory} that cannot be read "
                f"({_reasons(damaged)}); going on from an older one.",
                stacklevel=2,
            )
        return state if saved is None else _in_place_of(state, saved)

    def close(self) -> None:
        """Waits for pending saves."""
        self.manager.wait_until_finished()
        self.manager.close()


def restore_model(run_dir: str | Path, model: Transformer) -> Transformer | None:
    """`model` with the newest saved weights of a run, in its layout; None without any.

    Reads nothing else of the checkpoint. Raises UserError if none is readable.
    """
    folder = Path(run_dir).absolute() / "checkpoints"
    if not folder.is_dir():
        return None
    unread: Any = None
    only_model = TrainState(step=unread, model=model, opt_state=unread)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = {
        name: x.update(sharding=x.sharding or device)
        for name, x in _abstract(only_model).items()
    }
    options = ocp.CheckpointManagerOptions(create=False)
    handlers = ocp.PyTreeCheckpointHandler()
    with ocp.CheckpointManager(
        folder, options=options, item_handlers=handlers
    ) as manager:
        saved, damaged = _newest(
            manager,
            abstract,
            ocp.args.PyTreeRestore(
                abstract,
                restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
                partial_restore=True,
            ),
            whole=False,
        )
    if damaged:
        warnings.warn(
            f"Newer checkpoints in {folder} cannot be read ({_reasons(damaged)}); the "
            "model is that of an older one.",
            stacklevel=2,
        )
    return None if saved is None else _in_place_of(only_model, saved).model


def _newest(
    manager: ocp.CheckpointManager,
    abstract: dict[str, jax.ShapeDtypeStruct],
    args: ocp.args.CheckpointArgs,
    *,
    whole: bool,
) -> tuple[dict[str, jax.Array] | None, dict[int, str]]:
    """(the arrays `abstract`, by `args`, of the newest checkpoint that can be read,
    why each newer one cannot, by step); (None, {}) if there is no checkpoint.

    The arrays are the `whole` of it, or some of its arrays. Raises UserError where none
    can be read, and where one that is not damaged holds other arrays.
    """
    damaged = {}  # step -> why
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            with _reads_finished():
                _check_fits(manager.item_metadata(step).tree, abstract, whole=whole)
                saved: Any = manager.restore(step, args=args)
        except UserError as error:
            raise UserError(
                f"The checkpoint of step {step} in {manager.directory} does not fit "
                f"this config: {error}. Use another run_dir, or the config it was made "
                "with."
            ) from None
        except Exception as error:  # Orbax raises plain ones too
            damaged[step] = " ".join(str(error).split())[:200]  # pages of it
            continue
        return saved, damaged
    if damaged:
        raise UserError(
            f"No checkpoint in {manager.directory} can be read: they are damaged "
            f"({_reasons(damaged)}). Use another run_dir, or delete that folder: the "
            "run begins anew."
        )
    return None, {}


class _PatientLoop(asyncio.SelectorEventLoop):
    """An event loop that lets its tasks end before it closes."""

    def close(self) -> None:
        if not self.is_closed() and (tasks := asyncio.all_tasks(self)):
            self.run_until_complete(asyncio.wait(tasks))
        super().close()


class _PatientLoops(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> _PatientLoop:
        return _PatientLoop()


@contextlib.contextmanager
def _reads_finished() -> Iterator[None]:
    """Has Orbax wait for the other reads of a restore when one fails. It would close
    their event loop, and each would end in a traceback on the screen."""
    policy = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(_PatientLoops())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(policy)


def _reasons(damaged: Mapping[int, str]) -> str:
    return "; ".join(f"step {step}: {why}" for step, why in damaged.items())


def _check_fits(
    saved: Mapping, abstract: dict[str, jax.ShapeDtypeStruct], *, whole: bool
) -> None:
    """Raises UserError for missing, additional or misshaped arrays before any is read:
    Orbax would say less, and leave reads pending."""
    if whole and (more := sorted(saved.keys() - abstract.keys())):
        raise UserError(f"it has {more[0]} too")
    for name, array in abstract.items():
        if name not in saved:
            raise UserError(f"it has no {name}")
        if saved[name].shape != array.shape:
            raise UserError(
                f"its {name} is of shape {saved[name].shape}, not {array.shape}"
            )


def _abstract(state: TrainState) -> dict[str, jax.ShapeDtypeStruct]:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, by_path(state))


def _in_place_of(state: TrainState, saved: dict[str, jax.Array]) -> TrainState:
    treedef = jax.tree.structure(_changing(state))
    changed = treedef.unflatten(saved[name] for name in by_path(state))
    return changed.replace(model=with_trainable(state.model, changed.model))


def by_path(state: TrainState) -> dict[str, jax.Array]:
    """All arrays that training changes, by path, in tree order."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(_changing(state))
    }


def _changing(state: TrainState) -> TrainState:
    return state.replace(model=trainable(state.model))
