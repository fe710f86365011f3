"""Installation of valley_jax; see README.md."""

import setuptools

setuptools.setup(
    name='valley_jax',
    version='0.1.0',
    description='Data-scaling studies of code-reasoning distillation in JAX.',
    license='Apache-2.0',
    packages=setuptools.find_packages(include=['valley_jax', 'valley_jax.*']),
    python_requires='>=3.11',
    install_requires=[
        'absl-py>=2.2',
        'array-record>=0.8.1,<0.9',
        'etils[epath]>=1.12',
        'flax>=0.12.7,<0.13',
        'grain>=0.2.16,<0.3',
        'jax>=0.10.1,<0.13',
        'jinja2>=3.1.4',
        'matplotlib>=3.9',
        'ml-collections>=1.1,<2',
        'msgspec>=0.19,<1',
        'numpy>=2.1,<3',
        'optax>=0.2.8,<0.3',
        'orbax-checkpoint>=0.12.8,<0.13',
        'pyarrow>=20',
        'pyseccomp>=0.1.2',
        'tensorboard>=2.20,<3',
        'tensorboardx>=2.6.4,<3',
        'tokenizers>=0.22.2,<0.24',
        'tqdm>=4.66',
        'transformers>=5.12,<6',
    ],
)
