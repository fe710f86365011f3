"""Installation of valley_jax.

    pip install -e .            to run it on CPU
    pip install -e '.[gpu]'     with CUDA 13; `.[tpu]` on a TPU VM
    pip install -e '.[dev]'     to work on it; see CONTRIBUTING.md

Lower bounds are the oldest versions that the tests pass with; upper bounds stop
before the next release that may break an API that we use.
"""

import setuptools

setuptools.setup(
    name='valley_jax',
    version='0.1.0',
    description='Data-scaling studies of code-reasoning distillation in JAX.',
    license='Apache-2.0',
    packages=[
        *setuptools.find_packages(include=['valley_jax', 'valley_jax.*']),
        'valley_jax.configs',
    ],
    package_dir={'valley_jax.configs': 'configs'},
    package_data={'valley_jax': ['**/*.j2', '**/*.css', '**/*.js', '**/*.toml']},
    python_requires='>=3.11,<3.14',
    install_requires=[
        'absl-py>=2.2',
        'array-record>=0.8.1,<0.9',
        'datasketch>=2,<3',  # MinHash.
        'etils[epath]>=1.12',
        'flax>=0.12.7,<0.13',
        'fsspec>=2025.3',
        'grain>=0.2.16,<0.3',
        'jax>=0.10.1,<0.13',
        'jinja2>=3.1.4',  # Chat templates; transformers does not pull it.
        'markupsafe>=2.1',
        'matplotlib>=3.10',
        'ml-collections>=1.1,<2',
        'msgspec>=0.19,<1',
        'numpy>=2.1,<3',
        'openai>=3.54,<4',  # The client of a server that samples.
        'optax>=0.2.8,<0.3',
        'orbax-checkpoint>=0.12.8,<0.13',
        'pyarrow>=20',
        'pyseccomp>=0.1.2',
        'pyyaml>=6.0.2',
        'rapidfuzz>=3.14,<4',  # Levenshtein distance.
        'safetensors>=0.7,<0.9',
        'tensorboard>=2.20,<3',
        'tensorboardx>=2.6.4,<3',
        'tokenizers>=0.22.2,<0.24',
        'tqdm>=4.66',
        'transformers>=5.12,<6',
        'tree-sitter>=0.25,<0.27',
        'tree-sitter-cpp>=0.23.4,<0.24',
        'zstandard>=0.23,<1',
    ],
    extras_require={
        'gpu': ['jax[cuda13]'],
        'tpu': ['jax[tpu]'],
        'ray': ['ray>=2.50'],  # To judge on many hosts.
        # Linters are bound tightly: a new rule shall not fail an old commit.
        'test': [
            'flatbuffers>=24',  # jax.export, with which TPU code is lowered.
            'hypothesis>=6.150',
            'libtpu>=0.0.42',  # Compiles for TPUs that are not there: `plan`.
            'packaging>=24',
            'pyink>=26.5,<27',
            'pyright[nodejs]==1.1.414',  # Brings the Node.js it runs on.
            'pytest>=9,<10',
            'pytest-timeout>=2.4',
            'pytest-xdist>=3.8',
            'ray>=2.50',
            'ruff>=0.17,<0.18',
        ],
        # The reference of the parity tests. Not part of `test`: its usual
        # wheel pulls gigabytes of CUDA.
        'parity': ['torch>=2.13,<2.14'],
        'dev': ['valley_jax[test]', 'nbstripout>=0.9', 'pre-commit>=4'],
    },
)
