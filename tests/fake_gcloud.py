"""A `gcloud` whose TPUs are directories: FAKE_CLOUD/workers/NODE-w-WORKER.

Its `ssh` runs the command there, as a child that dies with the connection, and
its `scp` copies. FAKE_CLOUD has `plan.json`, for each request that will come
the states that `describe` will tell of it; `slices.json`, the states of slices
that are not READY; and `deaf`, where it is to reach no slice but the first.
What it was called with is in `calls.jsonl`.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

CLOUD = pathlib.Path(os.environ['FAKE_CLOUD'])
WORKERS_OF_A_SLICE = 2


def main(words: list[str]) -> int:
  with open(CLOUD / 'calls.jsonl', 'a') as calls:
    calls.write(json.dumps(words) + '\n')
  flags = {}
  plain = []
  for word in words:
    if word.startswith('--'):
      key, _, value = word[2:].partition('=')
      flags[key] = value
    else:
      plain.append(word)
  if plain[0] == 'config':
    return 1
  if plain[0] == 'storage':
    listed = CLOUD / 'bucket' / plain[2].removeprefix('gs://')
    print(*sorted(map(str, listed.glob('*'))), sep='\n')
    return 0 if listed.exists() else 1
  verb, *names = plain[3:]
  request = CLOUD / f'request-{flags["zone"]}.json'
  if verb == 'create':
    return create(request, flags)
  if not request.exists():
    print('ERROR: NOT_FOUND: no such resource', file=sys.stderr)
    return 0 if verb == 'list' else 1
  num_slices = json.loads(request.read_text())['slices']
  if verb == 'describe':
    print(next_state(request))
  elif verb == 'delete':
    request.unlink()
    switch_off()
  elif verb == 'list':
    states = json.loads((CLOUD / 'slices.json').read_text())
    for i in range(num_slices):
      is_len = 'len()' in flags['format']
      print(WORKERS_OF_A_SLICE if is_len else states.get(str(i), 'READY'))
  else:
    reached = homes(flags, num_slices)
    return {'ssh': ssh, 'scp': scp}[verb](reached, names, flags)
  return 0


def create(request: pathlib.Path, flags: dict[str, str]) -> int:
  plan = json.loads((CLOUD / 'plan.json').read_text())
  states = plan.pop(0)
  (CLOUD / 'plan.json').write_text(json.dumps(plan))
  if not states:
    print('ERROR: RESOURCE_EXHAUSTED: quota', file=sys.stderr)
    return 1
  slices = int(flags.get('node-count', 1))
  request.write_text(json.dumps({'states': states, 'slices': slices}))
  (CLOUD / 'slices.json').write_text('{}')
  for i in range(slices):
    for k in range(WORKERS_OF_A_SLICE):
      (CLOUD / 'workers' / f'{i}-w-{k}').mkdir(parents=True, exist_ok=True)
  return 0


def next_state(request: pathlib.Path) -> str:
  content = json.loads(request.read_text())
  state = content['states'][0]
  if len(content['states']) > 1:
    del content['states'][0]
    request.write_text(json.dumps(content))
  return state


def switch_off() -> None:
  """The machines go, with all that runs on them."""
  for pids in CLOUD.glob('workers/*/valley_jax_run/pids'):
    for pid in map(int, pids.read_text().split()):
      try:
        os.kill(pid, signal.SIGKILL)
      except ProcessLookupError:
        pass
  shutil.rmtree(CLOUD / 'workers', ignore_errors=True)


def homes(flags: dict[str, str], num_slices: int) -> list[pathlib.Path]:
  numbers = lambda flag, num: range(num) if flag == 'all' else [int(flag)]
  slices = numbers(flags['node'], num_slices)
  if (CLOUD / 'deaf').exists():
    print('WARNING: Could not prepare all nodes', file=sys.stderr)
    slices = [i for i in slices if i == 0]
  return [
      CLOUD / 'workers' / f'{i}-w-{k}'
      for i in slices
      for k in numbers(flags['worker'], WORKERS_OF_A_SLICE)
  ]


def scp(reached: list[pathlib.Path], names: list[str], flags: dict[str, str]) -> int:
  del flags
  for home in reached:
    shutil.copy(names[0], home / names[1].partition(':')[2])
  return 0


def ssh(reached: list[pathlib.Path], names: list[str], flags: dict[str, str]) -> int:
  del names
  children = [
      subprocess.Popen(
          # OpenSSH joins its words, and the login shell takes them apart.
          ['bash', '-c', ' '.join(flags['command'].split(' '))],
          cwd=home,
          env={'HOME': str(home), 'HOSTNAME': home.name, 'PATH': f'{CLOUD}/bin'},
          start_new_session=True,
      )
      for home in reached
  ]

  def break_off(*unused_signal_and_frame):
    for child in children:
      os.killpg(child.pid, signal.SIGHUP)
    sys.exit(255)

  signal.signal(signal.SIGTERM, break_off)
  status = max([child.wait() for child in children], default=0)
  for child in children:  # Nothing that belongs to it survives a connection.
    try:
      os.killpg(child.pid, signal.SIGHUP)
    except ProcessLookupError:
      pass
  return status


if __name__ == '__main__':
  sys.exit(main([word for word in sys.argv[1:] if word != '--quiet']))
