"""The report says what the scores say, safely, and the same after a kill."""

import html.parser
import json
import re
import shutil

import ml_collections as mlc
import pytest

from tests import forked
from tests import marks
from tests import rows
from valley_jax import jsonl
from valley_jax import records
from valley_jax import report

_ATTACK = '</script><script>alert(1)</script><img src=x onerror=alert(2)>'
_VERDICTS = ('AC', 'WA', 'TLE', 'ILE', 'MLE', 'OLE', 'RE', 'CE')


def _make_scores(num_traces, seed, correct):
  share = sum(correct) / len(correct)
  return {
      'name': 'tiny',
      'num_traces': num_traces,
      'seed': seed,
      'num_problems': len(correct),
      'num_samples': 1,
      'pass_at_1': share,
      'pass_at_1_interval': [share, share],
      'completion_rate': 1.0,
      'think_tag_rate': 0.5,
      'think_closed_rate': 0.5,
      'no_program_rate': 0.0,
      'pass_at_1_given_completion': share,
      'mean_completion_tokens': 3.0,
      'verdicts': {v: sum(correct) if v == 'AC' else 1 for v in _VERDICTS},
      'by_difficulty': {'easy': {}},
      'tier': 'T0',
      'waivers': [],
      'profile': 'strict',
      'calibration': None,
      'command': 'python -m it',
      'problems': [
          {'problem_id': f'p{i}', 'difficulty': 'easy', 'num_samples': 1, 'num_correct': c}
          for i, c in enumerate(correct)
      ],
  }


def _write_run(root, num_traces, seed, correct, text='<think>a</think>b', subset=None):
  run = root / f'runs/{subset or f"n{num_traces:05d}"}_s{seed}'
  scores = _make_scores(num_traces, seed, correct)
  named = {} if subset is None else {'subset': subset}
  jsonl.write_json(run / 'scores.json', {**scores, **named})
  jsonl.write_rows(run / 'metrics.jsonl', [{'step': 1, 'loss': 2.5}])
  completions, judgements = [], []
  for i, c in enumerate(correct[:2]):
    completions.append(
        records.Completion(
            problem_id=f'p{i}',
            sample_index=0,
            text=text,
            finish_reason=records.FinishReason.EOS,
            num_prompt_tokens=1,
            tokens=(1,),
            log_prob=0.0,
        )
    )
    judgements.append(
        rows.make_judgement(
            f'p{i}', 0, 'AC' if c else 'WA', tests_passed=c, first_failed=None if c else 0
        )
    )
  jsonl.write_rows(run / 'completions.jsonl', completions)
  jsonl.write_rows(run / 'judgements.jsonl', judgements)


def _make_config(root, **changes):
  test = records.TestCase(input='5 5', expected='10')
  jsonl.write_rows(
      root / 'problems.jsonl',
      [
          records.Problem(problem_id=f'p{i}', statement='Add.', stub='def f(x):', tests=(test,))
          for i in range(2)
      ],
  )
  values = dict(
      name='tiny',
      problems=f'jsonl:{root}/problems.jsonl',
      num_bootstrap=50,
      command='python -m the.study',
  )
  return mlc.ConfigDict({**values, **changes}).lock()


@pytest.fixture(scope='module')
def study(tmp_path_factory):
  """A reported study with a valley, in which every completion attacks."""
  root = tmp_path_factory.mktemp('study')
  for num_traces, n in [(0, 16), (16, 2), (64, 30)]:
    correct = [1] * n + [0] * (32 - n)
    _write_run(root, num_traces, 0, correct[::-1], _ATTACK)
  report.report(_make_config(root), str(root))
  return root


class _PageParser(html.parser.HTMLParser):
  """Collects elements, and the texts of <script> elements."""

  def __init__(self, text):
    super().__init__()
    self.elements, self.scripts = [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag == 'script':
      self.scripts.append('')

  def handle_data(self, data):
    if self.cdata_elem == 'script':
      self.scripts[-1] += data


def _read_outputs(root):
  """The bytes of all that `report` writes but TensorBoard's events."""
  paths = [root / name for name in ('report.html', 'report.md', 'curve.json')]
  paths += sorted((root / 'figures').glob('*.png'))
  return {path.name: path.read_bytes() for path in paths if path.exists()}


def test_the_page_states_the_valley(study):
  page = (study / 'report.html').read_text()
  assert '<h1>There is a valley, 43.8 points deep.</h1>' in page
  assert '64 traces beat the base student' in page


def test_the_numbers_are_also_in_a_file(study):
  curve = jsonl.read_json(study / 'curve.json')
  assert curve['lowest']['num_traces'] == 16
  assert curve['baseline']['pass_at_1'] == 0.5


def test_waivers_are_on_the_page_and_in_markdown(tmp_path):
  _write_run(tmp_path, 16, 0, [1, 0])
  path = tmp_path / 'runs/n00016_s0/scores.json'
  scores = jsonl.read_json(path)
  scores.update(waivers=['memory_sum'], calibration=[0.1, 0.25])
  jsonl.write_json(path, scores)
  report.report(_make_config(tmp_path), str(tmp_path))
  judged_on = 'T0; strict; waived: memory_sum; loop 0.100–0.250 s'
  assert judged_on in (tmp_path / 'report.html').read_text()
  assert judged_on in (tmp_path / 'report.md').read_text()


def test_every_figure_is_on_the_page_in_markdown_and_a_png(study):
  page = (study / 'report.html').read_text()
  markdown = (study / 'report.md').read_text()
  names = {path.stem for path in (study / 'figures').glob('*.png')}
  assert names == {'curve', 'rates', 'verdicts', 'loss'}
  assert page.count('<svg') == 4
  for name in names:
    assert f'<section id="{name}">' in page
    assert f'](figures/{name}.png)' in markdown


def test_figures_are_in_tensorboard(study):
  (events,) = (study / 'tensorboard_report').iterdir()
  assert b'curve' in events.read_bytes()


def test_markdown_shows_a_tag_instead_of_taking_it_for_html(study):
  assert r'begins with \<think>' in (study / 'report.md').read_text()


def test_every_run_comes_with_its_command(study):
  markdown = (study / 'report.md').read_text()
  assert markdown.count('`python -m it`') == 3
  assert (study / 'report.html').read_text().count('python -m it<') == 3


def test_the_page_loads_nothing_from_a_network(study):
  text = (study / 'report.html').read_text()
  for tag, attrs in _PageParser(text).elements:
    assert tag not in ('link', 'iframe', 'img', 'object', 'embed')
    assert 'src' not in attrs
    assert attrs.get('href', '#').startswith('#')
  assert not re.search(r'https?://|@import|url\((?!#)', text)


def test_a_hostile_completion_stays_inert(study):
  page = _PageParser((study / 'report.html').read_text())
  assert len(page.scripts) == 2  # The data, and the page's own.
  data = json.loads(page.scripts[0])
  assert data['runs'][0]['samples'][0]['answer'] == _ATTACK
  assert 'alert' not in page.scripts[1]
  assert not [a for _, attrs in page.elements for a in attrs if a[:2] == 'on']


def test_the_script_makes_elements_from_text_only(study):
  script = _PageParser((study / 'report.html').read_text()).scripts[1]
  for sink in ('innerHTML', 'outerHTML', 'insertAdjacent', 'write(', 'eval'):
    assert sink not in script


def test_a_sample_shows_its_statement_and_first_failed_test(study):
  page = _PageParser((study / 'report.html').read_text())
  data = json.loads(page.scripts[0])
  assert data['statements']['p0'] == 'Add.\n\ndef f(x):'
  assert data['runs'][0]['samples'][0]['failed'] == {'number': 1, 'input': '5 5', 'expected': '10'}


def test_hostile_names_are_escaped(tmp_path):
  _write_run(tmp_path, 16, 0, [1, 0])
  config = _make_config(tmp_path, name=_ATTACK, command=_ATTACK)
  report.report(config, str(tmp_path))
  page = _PageParser((tmp_path / 'report.html').read_text())
  assert len(page.scripts) == 2
  assert 'img' not in [tag for tag, _ in page.elements]


def test_a_single_run_has_a_page_and_no_verdict(tmp_path):
  _write_run(tmp_path, 16, 0, [1, 0])
  report.report(_make_config(tmp_path), str(tmp_path))
  page = (tmp_path / 'report.html').read_text()
  assert '<h1>No base run, so no valley to look for.</h1>' in page


def _write_subsets(root, *names, base=True):
  """Two subsets of one size; the first solves more."""
  if base:
    _write_run(root, 0, 0, [0] * 32, subset='')
  for i, name in enumerate(names):
    correct = [1] * (24 - 16 * i) + [0] * (8 + 16 * i)
    _write_run(root, 16, 0, correct, subset=name)


def _find_lines(root, beginning):
  lines = (root / 'report.md').read_text().splitlines()
  return [line for line in lines if line.startswith(beginning)]


def test_subsets_of_one_size_are_compared_and_are_on_no_curve(tmp_path):
  _write_subsets(tmp_path, 'correct', 'incorrect')
  report.report(_make_config(tmp_path), str(tmp_path))
  page = (tmp_path / 'report.html').read_text()
  assert '<h1>correct beats incorrect by 50.0 points.</h1>' in page
  for name in ('subsets', 'pairs'):
    assert f'<section id="{name}">' in page
    assert (tmp_path / f'figures/{name}.png').exists()
  assert 'id="curve"' not in page and not (tmp_path / 'curve.json').exists()
  comparison = jsonl.read_json(tmp_path / 'subsets.json')['all']
  assert comparison['base']['pass_at_1'] == 0
  assert comparison['pairs'][0]['difference'] == 0.5


def test_a_subset_is_in_a_row_with_its_size_rates_and_gap_to_the_base(tmp_path):
  _write_subsets(tmp_path, 'correct', 'incorrect')
  report.report(_make_config(tmp_path), str(tmp_path))
  base, correct, *_ = _find_lines(tmp_path, ('| base student', '| correct |'))
  assert base.startswith('| base student | 0 | 0 | 0.0\xa0% |')
  assert correct.startswith('| correct | 16 | 0 | 75.0\xa0% | ')
  assert '| +75.0 | ' in correct
  assert correct.endswith(' | 100.0\xa0% | 50.0\xa0% |')


def test_subsets_stand_in_the_order_of_the_study(tmp_path):
  _write_subsets(tmp_path, 'a', 'b')
  study = {'subsets': ('b', 'a')}
  report.report(_make_config(tmp_path, study=study), str(tmp_path))
  comparison = jsonl.read_json(tmp_path / 'subsets.json')['all']
  assert [arm['name'] for arm in comparison['arms']] == ['b', 'a']


def test_sizes_stay_on_the_curve_that_they_make_without_subsets(study, tmp_path):
  shutil.copytree(study / 'runs', tmp_path / 'runs')
  _write_subsets(tmp_path, 'correct', 'incorrect', base=False)
  report.report(_make_config(tmp_path), str(tmp_path))
  assert (tmp_path / 'curve.json').read_bytes() == (study / 'curve.json').read_bytes()
  page = (tmp_path / 'report.html').read_text()
  assert '<h1>There is a valley, 43.8 points deep.</h1>' in page
  assert 'correct against incorrect: +50.0 points' in page
  run = '| correct (16) | 0 | 32 × 1 | 75.0\xa0%'
  assert len(_find_lines(tmp_path, run)) == 1


def test_subsets_are_shown_by_difficulty(tmp_path):
  _write_subsets(tmp_path, 'correct', 'incorrect')
  for path in (tmp_path / 'runs').glob('*/scores.json'):
    scores = jsonl.read_json(path)
    scores['by_difficulty'] = {'easy': {}, 'hard': {}}
    for i, problem in enumerate(scores['problems']):
      problem['difficulty'] = 'easy' if i < 8 else 'hard'
    jsonl.write_json(path, scores)
  report.report(_make_config(tmp_path), str(tmp_path))
  easy = _find_lines(tmp_path, '| easy | incorrect | 100.0')
  hard = _find_lines(tmp_path, '| hard | incorrect | 0.0')
  assert len(easy) == len(hard) == 1
  assert (tmp_path / 'figures/subset_difficulty.png').exists()


def test_the_base_run_alone_has_a_page(tmp_path):
  _write_run(tmp_path, 0, 0, [1, 0])
  report.report(_make_config(tmp_path), str(tmp_path))
  assert 'The base student alone.' in (tmp_path / 'report.html').read_text()


def test_judged_submissions_have_a_page_without_rates_or_samples(tmp_path):
  scores = {**_make_scores(0, 0, [1, 0]), 'completion_rate': None}
  for name in ('think_tag_rate', 'think_closed_rate', 'no_program_rate'):
    scores[name] = None
  scores['pass_at_1_given_completion'] = None
  scores['mean_completion_tokens'] = None
  jsonl.write_json(tmp_path / 'scores.json', scores)
  report.report(_make_config(tmp_path), str(tmp_path))
  page = (tmp_path / 'report.html').read_text()
  assert 'id="rates"' not in page
  assert 'id="samples"' not in page


def test_no_runs_are_an_error_with_a_remedy(tmp_path):
  with pytest.raises(ValueError, match='run `score`'):
    report.report(_make_config(tmp_path), str(tmp_path))


def test_many_long_completions_stay_under_three_megabytes(tmp_path):
  for seed in range(10):
    _write_run(tmp_path, 16, seed, [1, 0], '<' * 200_000)
  report.report(_make_config(tmp_path), str(tmp_path))
  assert (tmp_path / 'report.html').stat().st_size < 3_000_000


# Of the 28 file operations of a report: while the figures are being written,
# between report.md and the page, and at the very rename of the page.
@pytest.mark.parametrize('operation', marks.long_but_first([19, 12, 27]))
def test_killed_and_run_again_gives_the_same_files(study, tmp_path, operation):
  uninterrupted = _read_outputs(study)
  shutil.copytree(study / 'runs', tmp_path / 'runs')
  config = _make_config(tmp_path)
  killed = forked.start_verb('report', json.dumps(config.to_dict()), tmp_path, operation)
  assert killed.wait() == -9, killed.read_output()
  assert 'report.html' not in _read_outputs(tmp_path)
  report.report(config, str(tmp_path))
  assert _read_outputs(tmp_path) == uninterrupted
