"""Correct programs of published data sets are accepted, and wrong ones are not."""

import pathlib
import subprocess
import sys

import pytest

from tests import judged
from tests import solutions
from valley_jax import jsonl
from valley_jax import records

ROOT = pathlib.Path(__file__).parents[1]
DATA = ROOT.parent / 'shared/data'
sys.path.append(str(ROOT / 'benchmarks'))
import truth  # noqa: E402

pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f'{DATA} is not there')


@pytest.fixture(scope='module')
def humaneval():
  golden = truth.read_humaneval_solutions(DATA)
  rows = truth.read_gzipped_rows(DATA / 'HumanEval.jsonl.gz')[::4]
  stubs = {
      (row['task_id'], body): row['prompt'] + f'    {body}\n'
      for body in ('pass', 'return 123456')
      for row in rows
  }
  spec = f'humaneval:{DATA}/HumanEval.jsonl.gz'
  return golden, truth.judge_by_key(spec, golden | stubs)


def _list_verdicts(judgements) -> list[str]:
  return [judgement.verdict.value for judgement in judgements]


def test_every_humaneval_solution_is_accepted(humaneval):
  golden, judgements = humaneval
  assert len(golden) == 164
  wrong = [key for key in golden if judgements[key].verdict.value != 'AC']
  assert not wrong


def test_no_humaneval_stub_is_accepted(humaneval):
  golden, judgements = humaneval
  verdicts = _list_verdicts(row for key, row in judgements.items() if key not in golden)
  assert len(verdicts) == 82
  assert {*verdicts} <= {'WA', 'RE'}


def test_no_value_that_equals_anything_solves_humaneval():
  rows = truth.read_gzipped_rows(DATA / 'HumanEval.jsonl.gz')[::8]
  cheats = {
      row['task_id']: f'{judged.EQUALS_ANYTHING}\ndef {row["entry_point"]}(*_): return E(0)\n'
      for row in rows
  }
  judgements = truth.judge_by_key(f'humaneval:{DATA}/HumanEval.jsonl.gz', cheats)
  assert 'AC' not in _list_verdicts(judgements.values())


def test_no_value_that_equals_anything_solves_leetcode():
  rows = truth.read_gzipped_rows(DATA / 'leetcode-20240121-Jul.jsonl.gz')[::8]
  method = '  def __getattr__(self, name): return lambda *_, **__: E(0)\n'
  cheats = {row['task_id']: f'{judged.EQUALS_ANYTHING}\nclass Solution:\n{method}' for row in rows}
  judgements = truth.judge_by_key(f'leetcode:{DATA}/leetcode-20240121-Jul.jsonl.gz', cheats)
  assert 'AC' not in _list_verdicts(judgements.values())


def test_mbpp_solutions_are_accepted():
  golden = truth.read_mbpp_solutions(DATA)
  assert len(golden) == 974
  some = dict(list(golden.items())[::8])  # All: benchmarks/truth.py.
  judgements = truth.judge_by_key(f'mbpp:{DATA}/mbpp.jsonl.gz', some)
  assert [k for k in some if judgements[k].verdict.value != 'AC'] == []


@pytest.mark.parametrize('index, verdict', [(0, 'AC'), (1, 'WA')])
def test_leetcode_solutions_are_told_from_wrong_ones(index, verdict):
  programs = {task: both[index] for task, both in solutions.LEETCODE.items()}
  spec = f'leetcode:{DATA}/leetcode-20240121-Jul.jsonl.gz'
  judgements = truth.judge_by_key(spec, programs)
  assert _list_verdicts(judgements.values()) == [verdict] * 5


@pytest.fixture(scope='module')
def kattis(tmp_path_factory):
  """Judges by the command line, in the language that a row names."""
  path = tmp_path_factory.mktemp('kattis')
  jsonl.write_rows(path / 'programs.jsonl', truth.build_submissions(solutions.KATTIS))
  command = [
      sys.executable, '-m', 'valley_jax.execute',
      '--config', ROOT / 'configs/evaluate.py', '--workdir', path / 'w',
      f'--config.problems=kattis:{DATA}/kattis',
      f'--config.submissions={path}/programs.jsonl',
      f'--config.cpu_seconds={truth.KATTIS["cpu_seconds"]}',
  ]  # fmt: skip
  subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
  rows = jsonl.read_rows(path / 'w/judgements.jsonl', records.Judgement)
  return dict(zip(solutions.KATTIS, rows, strict=True))


@pytest.mark.parametrize('name', solutions.KATTIS, ids=' '.join)
def test_a_program_gets_the_verdict_it_was_written_for(kattis, name):
  problem, kind = name
  assert kattis[name].problem_id == problem
  assert kattis[name].verdict.value == kind.split()[0], kattis[name]


def test_every_kattis_package_has_a_program_of_each_kind():
  kinds = {'AC', 'AC C++', 'WA', 'TLE', 'RE'}
  packages = {path.parent.name for path in DATA.rglob('problem.yaml')}
  assert {*solutions.KATTIS} == {(p, kind) for p in packages for kind in kinds}
