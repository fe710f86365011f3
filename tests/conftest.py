"""What holds for every test: CPU, eight devices, no network, no chance."""

import os

import hypothesis

# Before JAX is imported, here and in every program that a test starts. One
# process of eight devices serves the tests of one device too: what they
# compile runs on the first. A test that starts a program which is to see one
# device sets JAX_NUM_CPU_DEVICES=1 for it.
os.environ.update(
    JAX_PLATFORMS='cpu',
    JAX_NUM_CPU_DEVICES='8',
    # XLA's pool of threads: eight devices that meet in a collective need eight
    # at once, and would wait forever on a machine of two cores.
    NPROC='16',
    HF_HUB_OFFLINE='1',
    TOKENIZERS_PARALLELISM='false',
    TRANSFORMERS_VERBOSITY='error',  # No banner that torch is not here.
    MPLBACKEND='agg',
)

# The same examples on every run, and no deadline: a first call compiles.
hypothesis.settings.register_profile('valley_jax', derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile('valley_jax')
