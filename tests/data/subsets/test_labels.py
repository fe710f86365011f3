"""Labels of traces: difficulty by a rule a set, verdicts by execution."""

import re
from typing import Any

import pytest

from tests import rows
from valley_jax import records
from valley_jax.data.subsets import labels

V = records.Verdict


def _trace(name='t', problem='p', **fields):
  fields.setdefault('question', 'Print 1.')
  fields.setdefault('response', '<think>a</think>```python\nprint(1)\n```')
  return records.Trace(trace_id=name, problem_id=problem, **fields)


def _problem(name='p', statement='Print 1.', **fields):
  return records.Problem(
      problem_id=name,
      statement=statement,
      tests=(records.TestCase(input='', expected='1'),),
      **fields,
  )


def _ask(traces, *problems):
  return list(labels.extract_programs(traces, labels.ProblemIndex(problems or [_problem()])))


def _judgement(verdict, passed=0, sample_index=0):
  return rows.make_judgement('p', sample_index, verdict, tests_passed=passed, num_tests=4)


def _label(*judgements, all_tests=False):
  asked = _ask([_trace(str(i)) for i in range(len(judgements))])
  found = labels.join_judgements(asked, judgements, all_tests=all_tests)
  return [(t.is_correct, t.pass_rate) for t in found]


@pytest.mark.parametrize(
    ('source', 'said', 'meant'),
    [
        # The paper's rule, in OpenCodeReasoning's words.
        ('taco', 'EASY', 'easy'),
        ('taco', 'MEDIUM', 'easy'),
        ('taco', 'MEDIUM_HARD', 'hard'),
        ('taco', 'HARD', 'hard'),
        ('BAAI/TACO', 'VERY_HARD', 'hard'),
        ('taco', 'UNKNOWN_DIFFICULTY', ''),
        ('taco', '', ''),
        ('apps', 'introductory', 'easy'),
        ('codeparrot/apps', 'interview', 'easy'),
        ('apps', 'competition', 'hard'),
        ('apps', 'EASY', 'easy'),
        ('apps', '1500', ''),
        ('code_contests', '0', ''),  # UNKNOWN_DIFFICULTY
        ('code_contests', '2', 'easy'),  # MEDIUM
        ('code_contests', '5', 'hard'),  # HARDEST
        ('code_contests', '6', ''),  # EXTERNAL
        ('deepmind/code_contests', '9', 'easy'),  # C
        ('code_contests', '10', 'hard'),  # D
        ('code_contests', '28', 'hard'),  # V
        ('codecontests', 'd', 'hard'),
        ('codecontests', '800', 'easy'),
        ('code_contests', '2400', 'hard'),
        ('open-r1/codeforces', '1500', 'easy'),
        ('open-r1/codeforces', '1600.0', 'hard'),
        ('open-r1/codeforces', '0', ''),
        ('open-r1/codeforces', 'A', ''),
        ('leetcode', 'Medium', 'easy'),
        ('newfacade/LeetCodeDataset', 'Hard', 'hard'),
        ('', 'very hard', 'hard'),
        ('mini', 'depth-2', 'easy'),
        ('mini', 'depth-3', 'hard'),
        ('nowhere', '²', ''),
    ],
)
def test_a_set_s_own_word_becomes_easy_or_hard(source, said, meant):
  assert labels.classify_difficulty(_trace(source=source, difficulty=said)) == meant


def test_programs_of_a_problem_are_numbered_in_the_traces_order():
  traces = [_trace('a'), _trace('b', 'q'), _trace('c'), _trace('d', 'q')]
  asked = _ask(traces, _problem(), _problem('q', 'Other.'))
  assert [(a.trace.trace_id, a.submission and records.sample_key(a.submission)) for a in asked] == [
      ('a', ('p', 0)),
      ('b', ('q', 0)),
      ('c', ('p', 1)),
      ('d', ('q', 1)),
  ]


def test_one_id_for_two_questions_is_two_problems():
  problems = [_problem('one', 'Print 1.'), _problem('two', 'Print 2.')]
  traces = [
      _trace('a', '0', question='Print 1.'),
      _trace('b', '0', question='Print 2.'),
      _trace('c', '0', question='Print 3.'),
  ]
  submissions = [a.submission for a in _ask(traces, *problems)]
  assert [s and s.problem_id for s in submissions] == ['one', 'two', None]


def test_a_trace_gets_the_id_of_the_problem_that_it_is_about():
  traces = [
      _trace('a', 'hash', question='PRINT  1.'),
      _trace('b', 'hash', question='Print 1.', response='No program.'),
      _trace('c', 'other', question='Print 2.'),
  ]
  found = [a.trace for a in _ask(traces, _problem('taco/train/0'))]
  assert [trace.problem_id for trace in found] == ['taco/train/0', 'taco/train/0', 'other']


def test_a_program_is_handed_over_in_its_language():
  cpp = '<think>```python\n1\n```</think>```c++\nint main() {}\n```'
  (asked,) = _ask([_trace(response=cpp)])
  assert asked.submission == records.Submission(
      problem_id='p', sample_index=0, source='int main() {}\n', language='cpp17'
  )


@pytest.mark.parametrize(
    ('question', 'found'),
    [
        ('Print\r\n  ONE\tword.', 'p'),
        ('Print one word', ''),
        ('Print oneword.', ''),
        ('', ''),
        (' \ud800', ''),
    ],
)
def test_a_problem_of_another_name_has_the_same_words(question, found):
  trace = _trace(problem='00ff', question=question)
  problems = _problem('p', 'Print one word.'), _problem('empty', ' ')
  (asked,) = _ask([trace], *problems)
  assert (asked.submission and asked.submission.problem_id or '') == found
  assert asked.reason == ('' if found else 'its problem is not there')


def test_the_name_counts_more_than_the_words():
  problems = _problem('q', 'Print 1.'), _problem('p', 'Other.')
  (asked,) = _ask([_trace(problem='p')], *problems)
  assert asked.submission and asked.submission.problem_id == 'p'


@pytest.mark.parametrize(
    ('fields', 'reason'),
    [
        ({'response': 'So.'}, 'no program in the answer'),
        ({'response': 'So.', 'problem_id': 'q', 'question': '?'}, 'its problem is not there'),
        ({'response': '```java\n```', 'language': 'java'}, 'not run java'),
        ({'response': '```cpp\n```'}, 'is in cpp17, .* calls Python'),
    ],
)
def test_what_the_judge_would_not_take_is_not_asked(fields, reason):
  function = _problem(mode=records.Mode.FUNCTION, entry_point='f')
  ok, asked = _ask([_trace(), records.replace(_trace(), **fields)], function)
  assert ok.submission and asked.submission is None
  assert re.search(reason, asked.reason)


def test_right_is_what_passes_all_tests():
  assert _label(
      _judgement(V.ACCEPTED, 4, 0),
      _judgement(V.WRONG_ANSWER, 3, 1),
      _judgement(V.TIME_LIMIT, 1, 2),
      _judgement(V.COMPILE_ERROR, 0, 3),
      all_tests=True,
  ) == [(True, 1.0), (False, 0.75), (False, 0.25), (False, 0.0)]


def test_a_pass_rate_is_not_known_where_tests_were_left_out():
  assert _label(
      _judgement(V.ACCEPTED, 4, 0),
      _judgement(V.WRONG_ANSWER, 3, 1),
      _judgement(V.COMPILE_ERROR, 0, 2),
  ) == [(True, 1.0), (False, None), (False, 0.0)]


@pytest.mark.parametrize('all_tests', [True, False])
def test_a_failure_of_the_judge_is_no_label(all_tests):
  failed = _judgement(V.INTERNAL_ERROR, 3)
  assert _label(failed, all_tests=all_tests) == [(None, None)]


def test_what_a_source_said_does_not_stand_in():
  said: dict[str, Any] = dict(is_correct=True, pass_rate=0.5)
  traces = [
      _trace('a', **said),
      _trace('b', 'lost', question='?', **said),
      _trace('c', response='So.', **said),
  ]
  found = labels.join_judgements(_ask(traces), [_judgement(V.WRONG_ANSWER)], all_tests=False)
  assert [(t.is_correct, t.pass_rate) for t in found] == [(False, None), (None, None), (False, 0.0)]


def test_nothing_else_of_a_trace_changes():
  trace = _trace(teacher='T', difficulty='EASY', source='taco', split='train')
  (found,) = labels.join_judgements(_ask([trace]), [_judgement(V.ACCEPTED, 4)], all_tests=True)
  assert found == records.replace(trace, is_correct=True, pass_rate=1.0)


@pytest.mark.parametrize(
    ('judgements', 'remedy'),
    [
        ([], r"Trace t \(sample \('p', 0\)\) has no judgement.*run `execute`"),
        ([_judgement(V.ACCEPTED, 4, 1)], 'Trace t .* has no judgement'),
        ([_judgement(V.ACCEPTED, 4, i) for i in (0, 1)], "of .'p', 1., and no"),
    ],
)
def test_judgements_of_other_programs_are_refused(judgements, remedy):
  with pytest.raises(ValueError, match=remedy):
    list(labels.join_judgements(_ask([_trace()]), judgements, all_tests=True))
