"""launch/tpu.sh with a gcloud whose TPU VMs are directories of this machine."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
ZONE = 'us-east5-a'
HOSTS = ['0-w-0', '0-w-1', '1-w-0', '1-w-1']
IMAGE = ('bash cat chmod env grep gzip mkdir mv rm sed setsid sh sleep tail tar' ' touch').split()
LACKED = ['bwrap', 'g++', 'python3', 'python3.12']
RUN = ['python', 'job.py', '--workdir', 'gs://bucket/run']
ACTIVE = ['ACTIVE']

# Stands for launch/setup.sh: says that it ran, and makes a .venv.
SETUP = f"""#!/bin/bash
set -euo pipefail
echo "$1 ${{PYTHON:-}}" >>"$HOME/setups"
[[ ! -e broken ]] || {{ echo 'no such package' && exit 1; }}
mkdir -p .venv/bin
printf '#!/bin/bash\\n[[ $* == *libtpu* ]] || exec {sys.executable} "$@"\\n' \\
  >.venv/bin/python
chmod +x .venv/bin/python
echo made >>.venv/made
"""

# Stands for a run. Its last argument is a program.
JOB = """
import json, os, pathlib, signal, sys, time
home = pathlib.Path.home()
cloud = home.parents[1]
host = home.name
def until(path):
  deadline = time.monotonic() + 100
  while not path.exists() and time.monotonic() < deadline:
    time.sleep(0.01)
def save(*_):
  with open(home / 'saving', 'a') as signals:
    signals.write('.')
  until(cloud / 'release')
  print('saved', flush=True)
  os._exit(75)
signal.signal(signal.SIGTERM, save)
(home / 'argv.json').write_text(json.dumps(sys.argv[1:]))
print('a line of', host, flush=True)
if sys.argv[-2] == 'do':
  exec(sys.argv[-1])
"""


class Cloud:
  """A laptop's checkout in `laptop`, and the machines beside it."""

  def __init__(self, root: pathlib.Path):
    self.root = root
    self.laptop = root / 'laptop'
    self.started: list[subprocess.Popen] = []

  def plan(self, *requests: list[str]) -> None:
    (self.root / 'plan.json').write_text(json.dumps(requests))

  def begin(self, *words: str) -> subprocess.Popen:
    process = subprocess.Popen(
        ['bash', 'launch/tpu.sh', *words],
        cwd=self.laptop,
        env={
            'PATH': f'{self.root}/gcloud:/usr/bin:/bin',
            'HOME': str(self.root),
            'FAKE_CLOUD': str(self.root),
            'TPU_POLL': '0.02',
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    self.started.append(process)
    return process

  def call(self, *words: str, status: int = 0) -> str:
    process = self.begin(*words)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == status, said
    return said

  def have(self) -> None:
    """Two slices of two workers, with the code."""
    self.plan(ACTIVE)
    self.call('create', 'tpu', 'v5p-16', ZONE, '--node-count=2')
    for host in HOSTS:
      code = self.root / 'workers' / host / 'valley_jax'
      skip = shutil.ignore_patterns('.git', 'workdir')
      shutil.copytree(self.laptop, code, ignore=skip)
    first, *others = self.root.glob('workers/*/valley_jax')
    subprocess.run(
        ['bash', 'launch/setup.sh', 'tpu'],
        cwd=first,
        env={'HOME': str(self.root), 'PATH': '/usr/bin:/bin'},
        check=True,
    )
    for code in others:
      shutil.copytree(first / '.venv', code / '.venv')

  def calls(self, verb: str) -> list[list[str]]:
    """What gcloud was called with, of `create`, `ssh` and so on."""
    lines = (self.root / 'calls.jsonl').read_text().splitlines()
    return [words for words in map(json.loads, lines) if verb in words[:4]]

  def of_each(self, name: str) -> list[str]:
    """The content of a file in each worker's home."""
    return [(self.root / 'workers' / h / name).read_text() for h in HOSTS]

  def pids(self) -> list[int]:
    files = self.root.glob('workers/*/valley_jax_run/pids')
    return [int(pid) for file in files for pid in file.read_text().split()]

  def commit(self) -> None:
    for words in (['add', '-A'], ['commit', '-qm', 'more']):
      subprocess.run(['git', *words], cwd=self.laptop, check=True)


def runs(pid: int) -> bool:
  try:
    return bool(pathlib.Path(f'/proc/{pid}/cmdline').read_bytes())
  except FileNotFoundError:
    return False


def on_workers(root: pathlib.Path) -> list[int]:
  """All processes on the machines, known by their home."""
  found = []
  for directory in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      variables = (directory / 'environ').read_bytes()
    except OSError:
      continue  # It has ended, or is another user's.
    if f'HOME={root}/workers/'.encode() in variables:
      found.append(int(directory.name))
  return found


def wait_for(happened: Callable[[], bool]) -> None:
  deadline = time.monotonic() + 60
  while not happened():
    assert time.monotonic() < deadline, 'waited in vain for a minute'
    time.sleep(0.01)


@pytest.fixture
def cloud(tmp_path: pathlib.Path, monkeypatch) -> Iterator[Cloud]:
  for variable, value in [('NAME', 'me'), ('EMAIL', 'me@example.org')]:
    monkeypatch.setenv(f'GIT_AUTHOR_{variable}', value)
    monkeypatch.setenv(f'GIT_COMMITTER_{variable}', value)
  made = Cloud(tmp_path)
  (made.laptop / 'launch').mkdir(parents=True)
  for script in ROOT.glob('launch/tpu*.sh'):
    shutil.copy(script, made.laptop / 'launch')
  (made.laptop / 'launch' / 'setup.sh').write_text(SETUP)
  (made.laptop / 'job.py').write_text(JOB)
  (made.laptop / '.gitignore').write_text('/workdir*/\n')
  subprocess.run(['git', 'init', '-q'], cwd=made.laptop, check=True)
  made.commit()
  (tmp_path / 'gcloud').mkdir()
  fake = tmp_path / 'gcloud' / 'gcloud'
  source = ROOT / 'tests' / 'fake_gcloud.py'
  fake.write_text(f'#!/bin/bash\nexec {sys.executable} -IS {source} "$@"\n')
  fake.chmod(0o755)
  (tmp_path / 'bin').mkdir()  # What the machines' image brings.
  for name in IMAGE:
    (tmp_path / 'bin' / name).symlink_to(shutil.which(name) or '')
  for name in LACKED:
    (tmp_path / 'bin' / name).symlink_to('/bin/true')
  yield made
  (tmp_path / 'release').touch()
  for process in made.started:
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
  for pid in on_workers(tmp_path):
    with contextlib.suppress(ProcessLookupError):  # It has just ended.
      os.kill(pid, signal.SIGKILL)
  wait_for(lambda: not on_workers(tmp_path))


def test_create_waits_and_says_what_for(cloud):
  cloud.plan(['WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE'])
  said = cloud.call('create', 'tpu', 'v6e-64', ZONE, '--spot')
  reported = [line.split()[-1] for line in said.splitlines()]
  # The first was seen before it was asked for: there was none of this name.
  assert reported == ['WAITING_FOR_RESOURCES', 'PROVISIONING', 'READY']
  (words,) = cloud.calls('create')
  assert words == [
      *('compute', 'tpus', 'queued-resources', 'create', 'tpu'),
      *('--accelerator-type=v6e-64', '--spot', '--node-id=tpu'),
      *('--runtime-version=v2-alpha-tpuv6e', f'--zone={ZONE}'),
  ]


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        (['v5p-16', '--node-count', '2'], ['--node-count=2', '--runtime-version=v2-alpha-tpuv5']),
        (
            ['v5litepod-16', '--node-count=1'],
            ['--node-id=tpu', '--runtime-version=v2-alpha-tpuv5-lite'],
        ),
        (['v9-8', '--runtime-version=new'], ['--runtime-version=new', '--node-id=tpu']),
    ],
)
def test_a_request_names_slices_and_system(cloud, words, expected):
  cloud.plan(ACTIVE)
  cloud.call('create', 'tpu', *words, ZONE)
  assert cloud.calls('create')[0][-3:] == [*expected, f'--zone={ZONE}']


def test_a_type_of_no_known_system_is_refused(cloud):
  assert '--runtime-version=' in cloud.call('create', 'tpu', 'v9-8', ZONE, status=1)


@pytest.mark.parametrize('state', ['FAILED', 'SUSPENDED'])
def test_a_request_that_fails_says_so_and_what_to_do(cloud, state):
  cloud.plan(['PROVISIONING', state])
  said = cloud.call('create', 'tpu', 'v5p-16', ZONE, status=1)
  assert state in said and '`delete tpu`' in said


def test_of_several_zones_the_first_that_is_ready_is_kept(cloud):
  waiting = ['WAITING_FOR_RESOURCES']
  cloud.plan(waiting, [], ['PROVISIONING', 'ACTIVE'])
  cloud.call('create', 'tpu', 'v5p-16', 'a', 'b', 'c')
  assert [words[-2:] for words in cloud.calls('delete')] == [['--force', '--zone=a']]
  assert 'in c: READY' in cloud.call('status', 'tpu')


def test_setup_brings_exactly_what_is_committed(cloud):
  cloud.plan(ACTIVE)
  cloud.call('create', 'tpu', 'v5p-16', ZONE, '--node-count=2')
  (cloud.laptop / 'old.py').touch()
  cloud.commit()
  (cloud.laptop / 'workdir' / 'mine').touch()
  cloud.call('setup', 'tpu')
  (cloud.laptop / 'old.py').unlink()
  (cloud.laptop / 'new.py').touch()
  cloud.commit()
  assert 'ready on 4 workers' in cloud.call('setup', 'tpu')
  assert cloud.of_each('setups') == ['tpu \n' * 2] * 4
  assert cloud.of_each('valley_jax/.venv/made') == ['made\n' * 2] * 4
  for host in HOSTS:
    home = cloud.root / 'workers' / host
    names = {path.name for path in (home / 'valley_jax').iterdir()}
    assert names == {'.gitignore', '.venv', 'job.py', 'launch', 'new.py'}
    assert not list(home.glob('*.tar.gz'))


def test_what_is_not_committed_is_named_and_nothing_is_sent(cloud):
  cloud.plan(ACTIVE)
  cloud.call('create', 'tpu', 'v5p-16', ZONE)
  (cloud.laptop / 'job.py').write_text('')
  (cloud.laptop / 'new.py').touch()
  said = cloud.call('setup', 'tpu', status=1)
  assert 'M job.py' in said and '?? new.py' in said and 'Commit' in said
  assert not cloud.calls('scp')


def test_a_setup_that_fails_shows_why_and_where(cloud):
  cloud.have()
  (cloud.laptop / 'broken').touch()
  cloud.commit()
  said = cloud.call('setup', 'tpu', status=1)
  assert '1-w-1: no such package' in said
  assert f'failed on: {" ".join(HOSTS)}' in said


def test_setup_makes_up_for_what_the_image_lacks(cloud):
  """Of Ubuntu 22.04: bubblewrap, a compiler, Python 3.11; sudo is there."""
  cloud.plan(ACTIVE)
  cloud.call('create', 'tpu', 'v5p-16', ZONE, '--node-count=2')
  for name in LACKED:
    (cloud.root / 'bin' / name).unlink()
  for name, program in [
      ('sudo', 'echo "$@" >>"$HOME/sudo"'),
      (
          'python3',
          '[[ $* != *version* ]] || exit 1\nmkdir -p .uv/bin\n'
          "printf '#!/bin/sh\\necho /managed/$2-$3' >.uv/bin/uv\n"
          'chmod +x .uv/bin/uv',
      ),
  ]:
    path = cloud.root / 'bin' / name
    path.write_text(f'#!/bin/bash\n{program}\n')
    path.chmod(0o755)
  cloud.call('setup', 'tpu')
  assert all('bubblewrap g++' in said for said in cloud.of_each('sudo'))
  assert cloud.of_each('setups') == ['tpu /managed/find-3.12\n'] * 4


def test_arguments_arrive_unchanged_on_every_worker(cloud):
  cloud.have()
  hostile = [
      *('a  b ', '', "it's", '"', '*', '$HOME `id` $(id)', '\\', '~', '-x'),
      *('a\nb', 'ä', '!', '#', ';&|<>', '{a,b}', '%TPU%', '--flag=[x y]'),
  ]
  said = cloud.call('run', 'tpu', '--', *RUN, *hostile)
  assert 'a line of 0-w-0' in said and '1-w-1' not in said
  for argv in cloud.of_each('argv.json'):
    assert json.loads(argv) == [*RUN[2:], *hostile]


def test_the_exit_status_of_any_worker_is_that_of_the_run(cloud):
  cloud.have()
  program = 'if host == "1-w-1": print("oh no"), sys.exit(3)'
  said = cloud.call('run', 'tpu', '--', *RUN, 'do', program, status=3)
  assert '1-w-1: oh no' in said and 'worker 1-w-1 ended 3' in said


def test_a_worker_that_waits_for_one_that_failed_is_ended(cloud):
  cloud.have()
  program = 'if host == "0-w-0": sys.exit(3)\nuntil(cloud / "release")'
  said = cloud.call('run', 'tpu', '--', *RUN, 'do', program, status=3)
  assert f'gave up waiting for: {" ".join(HOSTS[1:])}' in said
  assert not any(map(runs, cloud.pids()))


def test_a_run_survives_the_laptop_and_stop_lets_it_save(cloud):
  cloud.have()
  laptop = cloud.begin('run', 'tpu', '--', *RUN, 'do', 'until(cloud / "end")')
  assert laptop.stdout
  for line in laptop.stdout:
    if 'a line of' in line:
      break
  os.killpg(laptop.pid, signal.SIGTERM)
  laptop.wait()
  assert len(cloud.pids()) == 8 and all(map(runs, cloud.pids()))
  assert 'running' in cloud.call('status', 'tpu')
  refused = cloud.call('run', 'tpu', '--', *RUN, status=1)
  assert 'A command runs on: 0-w-0' in refused and '`stop tpu`' in refused

  logs = cloud.begin('logs', 'tpu')
  stop = cloud.begin('stop', 'tpu')
  again = cloud.begin('stop', 'tpu')
  asked = lambda what: str(cloud.calls('ssh')).count(f'tpu_worker.sh {what}')
  wait_for(lambda: asked('stop') == 2)
  before = asked('report')
  wait_for(lambda: asked('report') > before + 3)  # Both have sent, and wait.
  saving = [cloud.root / 'workers' / host / 'saving' for host in HOSTS]
  wait_for(lambda: all(path.exists() for path in saving))
  assert stop.poll() is None and all(map(runs, cloud.pids()))
  assert cloud.of_each('saving') == ['.'] * 4
  (cloud.root / 'release').touch()
  for process in (stop, again):
    assert process.communicate(timeout=200)[0].count('ended 75') == 4
  assert 'saved' in logs.communicate(timeout=200)[0]


@pytest.mark.parametrize('words', [[], ['--workdir', 'run']])
def test_a_workdir_that_the_hosts_do_not_share_is_refused(cloud, words):
  for verb in ('run', 'loop'):
    said = cloud.call(verb, 'tpu', '--', 'python', *words, status=1)
    assert '--workdir gs://BUCKET/RUN' in said


def test_a_slice_that_gcloud_silently_left_out_is_noticed(cloud):
  cloud.have()
  (cloud.root / 'deaf').touch()
  said = cloud.call('run', 'tpu', '--', *RUN, status=1)
  assert '2 of 4 workers of tpu answered' in said


def test_delete_gives_all_back_and_forgets(cloud):
  cloud.have()
  cloud.call('delete', 'tpu')
  assert not list(cloud.root.glob('request-*'))
  assert not list(cloud.laptop.glob('workdir/tpu/*'))


# Of the first TPU that was asked for, a slice goes while the run is under way.
PREEMPTED = """
if (cloud / 'calls.jsonl').read_text().count('"create"') == 1:
  until(cloud / 'workers' / '1-w-1' / 'argv.json')
  (cloud / LOST[0]).write_text(LOST[1])
  sys.exit(1)
"""


@pytest.mark.parametrize(
    'lost',
    [
        (f'request-{ZONE}.json', '{"states": ["SUSPENDING", "SUSPENDED"], "slices": 2}'),
        ('slices.json', '{"1": "PREEMPTED"}'),
    ],
    ids=['request', 'slice'],
)
def test_the_loop_goes_on_with_a_new_tpu_after_a_preemption(cloud, lost):
  program = f'LOST = {lost}\n{PREEMPTED}'
  cloud.plan(ACTIVE, ['PROVISIONING', 'ACTIVE'])
  cloud.call('create', 'tpu', 'v5p-16', ZONE, '--node-count=2', '--spot')
  cloud.call('loop', 'tpu', '--', *RUN, 'do', program)
  first, second = cloud.calls('create')
  assert first == second
  assert len(cloud.calls('delete')) == 1 and len(cloud.calls('scp')) == 2


def test_the_loop_stops_at_a_failure_of_the_run(cloud):
  cloud.have()
  said = cloud.call('loop', 'tpu', '--', *RUN, 'do', 'sys.exit(3)', status=1)
  assert 'exit status 3' in said
  assert len(cloud.calls('scp')) == 1 and not cloud.calls('delete')


@pytest.mark.long
def test_the_loop_goes_on_as_long_as_there_are_new_checkpoints(cloud):
  cloud.have()
  program = """
kept = cloud / 'bucket' / 'bucket' / 'run' / 'checkpoints'
if host == '0-w-0':
  num = len(list(kept.glob('*')))
  if num < 1: (kept / str(num)).mkdir(parents=True)
sys.exit(75)
"""
  said = cloud.call('loop', 'tpu', '--', *RUN, 'do', program, status=1)
  assert '3 attempts in a row' in said and 'checkpoint_every' in said
  assert len(cloud.calls('scp')) == 1 + 3
