"""Where the results of a benchmark go, and the record of what they were measured on."""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ml_collections import ConfigDict

from ovd_jax.cli import flags
from ovd_jax.cli.config_files import ROOT
from ovd_jax.errors import UserError

PUBLISHED = Path(__file__).parent / "results"
OTHERS = Path("runs/benchmarks")
PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax", "numpy", "transformers")


class Output:
    """The results of one benchmark: `NAME.json`, and its plots beside it.

    They are those of the repository with the default settings or with
    `--config.publish=True`; else they are in `runs/benchmarks`.
    """

    def __init__(self, name: str, folder: Path, changed: dict):
        self.name = name
        self.folder = folder
        self._changed = changed

    def path(self, ending: str) -> Path:
        """`NAME` with an ending such as `.png`, in a folder that exists."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{self.name}{ending}"

    def read(self) -> dict:
        """What an earlier run wrote in the same place; empty if there was none."""
        return read_json(self.path(".json"))

    def read_published(self) -> dict:
        """The results in the repository; empty if there are none."""
        return read_json(PUBLISHED / f"{self.name}.json")

    def write(self, result: dict) -> None:
        """Replaces the results, with the record of the run."""
        self._write(result | {"run": self.provenance()})

    def _write(self, result: dict) -> None:
        text = json.dumps(result, indent=1) + "\n"
        self.path(".json").write_text(text, encoding="utf-8")

    def write_parts(self, parts: dict) -> None:
        """Replaces these parts of the results, each with the record of its run; others
        that an earlier run wrote stay."""
        kept = self.read()
        measured = kept.pop("measured", {}) | dict.fromkeys(parts, self.provenance())
        self._write(kept | parts | {"measured": measured})

    def provenance(self) -> dict:
        """Commit, date, machine, versions, and the settings that were changed."""
        return stamp() | {
            "machine": machine(),
            "versions": versions(),
            "settings": self._changed,
        }


def run(main: Callable, *, doc: str | None, default: str) -> None:
    """Calls `main(config, output)` as `flags.run` does.

    `config` has the knobs of the file `default` but for `publish`.
    """

    def with_output(config):
        config, output = prepare(config, default)
        main(config, output)
        print(f"Results are in {output.path('.json')}", file=sys.stderr)

    flags.run(with_output, doc=doc, default=default)


def prepare(config: ConfigDict, default: str) -> tuple[ConfigDict, Output]:
    """The config without `publish`, and the output that it asks for."""
    usual = {name: value for name, (_, value) in default_knobs(default).items()}
    given = {name: value for name, (_, value) in flags.knobs(config).items()}
    changed = {
        name: without_folders(value)
        for name, value in given.items()
        if name != "publish" and usual.get(name) != value
    }
    folder = PUBLISHED if config.publish or not changed else OTHERS
    with config.unlocked():
        del config.publish
    return config, Output(Path(default).stem, folder, changed)


def without_folders(value):
    """Files and folders, with commas between, by their names alone: where they lay is
    nobody else's."""
    if not isinstance(value, str):
        return value
    return ",".join(Path(part).name for part in value.split(","))


def default_knobs(default: str) -> dict:
    """The knobs of a config file as it is."""
    return flags.knobs(flags.load_file(default))


def for_training(config: ConfigDict) -> ConfigDict:
    """A copy without the knobs of the benchmark, which training does not have."""
    known = flags.load_file("configs/default.py")
    copy = config.copy_and_resolve_references()
    with copy.unlocked():
        for name in set(copy) - set(known):
            del copy[name]
    return copy


def read_json(path: Path) -> dict:
    """The content of a JSON file; empty if there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def stamp() -> dict[str, str]:
    """Commit and date."""
    now = datetime.datetime.now(datetime.UTC)
    return {"commit": commit(), "date": now.isoformat(timespec="seconds")}


def commit() -> str:
    """The commit that is checked out, `+` behind it if tracked files were changed,
    results apart."""
    root = str(ROOT)

    def git(*arguments: str) -> str:
        command = ["git", "-C", root, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        program = ("--", ".", ":!benchmarks/results")
        changed = git("status", "--porcelain", "--untracked-files=no", *program)
        return git("rev-parse", "--short=12", "HEAD") + "+" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> dict:
    """Processor, cores, memory in GiB, and the devices that JAX has."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if "jax" in sys.modules:
        kinds = [device.device_kind for device in sys.modules["jax"].devices()]
        found["devices"] = sorted(set(kinds))
    return found


def processor() -> str:
    """The model name that Linux gives, else what Python knows."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def run_parts(config, output: Output, parts: Mapping[str, Callable]) -> None:
    """Runs those of `parts` that `config.parts` names, writes what each gives as soon
    as it is over, beside what earlier runs wrote, and prints the summary."""
    started = time.time()
    results = {}
    for name in config.parts:
        if name not in parts:
            raise UserError(f"part {name!r} is not one of {', '.join(parts)}.")
        results[name] = parts[name](config)
        output.write_parts(results)
    flags.summary(**results, seconds=round(time.time() - started, 1))
