"""What holds for every test: CPU, eight devices, no network, no chance; and a tiny world."""

from collections.abc import Iterator
import os
import pathlib
import signal
import threading

import hypothesis
import pytest

# Before JAX is imported, here and in every program that a test starts. One process of eight devices
# serves the tests of one device, too: what they compile runs on the first. A test that starts a
# program for one device sets JAX_NUM_CPU_DEVICES=1.
os.environ.update(
    JAX_PLATFORMS='cpu',
    JAX_NUM_CPU_DEVICES='8',
    # XLA's pool of threads. Eight devices in a collective need eight threads at once; with the two
    # of a machine of two cores they would wait forever.
    NPROC='16',
    HF_HUB_OFFLINE='1',
    TOKENIZERS_PARALLELISM='false',
    TRANSFORMERS_VERBOSITY='error',  # No message that torch is missing.
    MPLBACKEND='agg',
)

# A shell's background job ignores SIGINT, and so would every program that a test interrupts.
if threading.current_thread() is threading.main_thread():
  signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples on every run, and no deadline: a first call compiles.
hypothesis.settings.register_profile('valley_jax', derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile('valley_jax')


@pytest.fixture(scope='session')
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Traces, problems and shards that all tests of a process read; none of them writes here."""
  # Imported here: tests that need no JAX do not wait for it.
  from tests import tiny

  path = tmp_path_factory.mktemp('tiny_world')
  tiny.write_world(path)
  return path


@pytest.fixture(scope='session')
def tiny_student(tiny_world: pathlib.Path) -> pathlib.Path:
  """The workdir of an untrained student of `tiny_world`."""
  from tests import tiny
  from valley_jax import train

  train.train(tiny.config(tiny_world, num_traces=0), str(tiny_world / 'student'))
  return tiny_world / 'student'


@pytest.fixture(autouse=True, scope='module')
def quick_compilation(request: pytest.FixtureRequest) -> Iterator[None]:
  """Compiles with few optimisations where tests compile longer than they compute.

  It halves their time. `launch/test.sh --all` compiles as users do.
  """
  path = request.path
  compiles = path.parent.name in ('models', 'training') or path.name == 'test_partitioning.py'
  if not compiles or 'or not long' in request.config.getoption('markexpr'):
    yield
    return
  import jax

  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', before)
