"""Install with `pip install .`, on an accelerator with one of the extras cuda12,
cuda13, rocm and tpu; the extra `test` adds what the tests need."""

import re
from pathlib import Path

from setuptools import find_packages, setup

PROGRAMS = (
    "train", "evaluate", "sft", "compare", "export", "make_judge_data",
    "make_simulator_data", "serve_search", "serve_teacher", "fetch_smollm2",
)  # fmt: skip
# Folders of the repository that are packages within ours where it is installed.
INSIDE = {"ovd_jax.configs": "configs", "ovd_jax.launch": "launch"}
VERSION = re.search('__version__ = "(.+)"', Path("ovd_jax/__init__.py").read_text())[1]
SERVER = ["fastapi>=0.115", "uvicorn>=0.30"]
HUB = ["datasets>=4.0", "huggingface_hub>=0.30"]  # the first runs no scripts

setup(
    name="ovd_jax",
    version=VERSION,
    description="On-policy Verbal Distillation in JAX: a black-box teacher scores, "
    "rejects and replaces what a student samples",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["ovd_jax", "ovd_jax.*"]), *INSIDE],
    package_dir=INSIDE,
    package_data={
        "": ["*.json", "*.jsonl", "py.typed"],
        "ovd_jax": ["embedded/*/*"],
        "ovd_jax.configs": ["problems/*"],
        "ovd_jax.launch": ["*.sh"],
    },
    entry_points={
        "console_scripts": [
            f"ovd-{name.replace('_', '-')} = ovd_jax.launch.{name}:run"
            for name in PROGRAMS
        ]
    },
    install_requires=[
        "absl-py>=2.1",
        "aiohttp>=3.10",
        "bm25s>=0.3",
        "chex>=0.1.90",
        "filelock>=3.12",
        "flax>=0.12.3",
        "gguf>=0.17",
        "httpx>=0.27",
        "jax>=0.10",
        "jinja2>=3.1",
        "math-verify>=0.9",
        "matplotlib>=3.9",
        "ml_collections>=1.0",
        "msgpack>=1.0",
        "numpy>=2.0",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.28,<1",  # ours is not its V1 API
        "rich>=13",
        "safetensors>=0.5",
        "tensorboardX>=2.6",
        "tenacity>=9.0",
        "tokenizers>=0.21",
        "transformers>=4.50",
    ],
    extras_require={
        "cuda12": ["jax[cuda12]>=0.10"],
        "cuda13": ["jax[cuda13]>=0.10"],
        "rocm": ["jax[rocm7-local]>=0.10"],  # beside a ROCm 7 that is installed
        "tpu": ["jax[tpu]>=0.10"],
        "search": SERVER,
        "hub": HUB,
        "docs": ["mkdocs-material>=9.6", "mkdocstrings[python]>=0.30"],
        "test": [
            *SERVER,
            *HUB,
            "openai>=1.60",  # beside which benchmarks/teacher.py measures us
            "psutil>=6",
            "pyright[nodejs]>=1.1.414",  # brings a node of its own
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "torch>=2.4",
        ],
    },
)
