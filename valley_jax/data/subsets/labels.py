"""Labels of traces: easy or hard by their source's own word, right or wrong by execution.

    programs = labels.extract_programs(traces, labels.ProblemIndex(problems))
    submissions = (p.submission for p in programs if p.submission)
    ...                                   # `execute` judges them, in order.
    programs = labels.extract_programs(traces, labels.ProblemIndex(problems))
    labelled = labels.join_judgements(programs, judgements, all_tests=True)

Traces, programs and judgements are in the same order, so all of them stream; only the problems' ids
and one number a problem are held in memory. A program is correct if it passes all tests (RQ2 of
*The Valley of Code Reasoning*). What was not executed, or could not be judged, is unknown, whatever
the source said about it.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import hashlib
import re
from typing import NamedTuple

from valley_jax import errors
from valley_jax import programs
from valley_jax import records

_CALLING_MODES = (records.Mode.FUNCTION, records.Mode.ASSERT)
NO_PROGRAM = 'no program in the answer'

# Difficulty has two classes, as in *The Valley of Code Reasoning* (2510.06101): a third between
# them would be left out of both of its sets. TACO's rule is the paper's, in which MEDIUM is easy;
# the other rules were chosen to agree with it.
_HARD_RATING = 1600  # On Codeforces: an expert's.
_WORDS = {
    'easy': 'easy',
    'medium': 'easy',
    'medium_hard': 'hard',
    'hard': 'hard',
    'very_hard': 'hard',
}
_APPS = {'introductory': 'easy', 'interview': 'easy', 'competition': 'hard'}
# CodeContests' classes in their order; a letter is a place in a contest.
_CODE_CONTESTS = 'unknown easy medium hard harder hardest external'.split() + list(
    'abcdefghijklmnopqrstuv'
)
_CODE_CONTESTS_CLASSES = {
    **dict.fromkeys(_CODE_CONTESTS, 'hard'),
    **dict.fromkeys(['easy', 'medium', 'a', 'b', 'c'], 'easy'),
    **dict.fromkeys(['unknown', 'external'], ''),
}
# The embedded world's: how many definitions an answer unfolds.
_MINI = {'depth_1': 'easy', 'depth_2': 'easy', 'depth_3': 'hard', 'depth_4': 'hard'}


def classify_difficulty(trace: records.Trace) -> str:
  """Returns 'easy' or 'hard', or '' if the trace's own word does not say."""
  name = re.sub('[^a-z]', '', trace.source.lower().rpartition('/')[2])
  word = re.sub('[ -]+', '_', trace.difficulty.strip().lower())
  return _RULES.get(name, _classify_word)(word)


def _classify_word(word: str) -> str:
  return _WORDS.get(word, '')


def _parse_number(word: str) -> int | None:
  """Returns the number in '1500' or '1500.0'."""
  match = re.fullmatch(r'([0-9]{1,5})(\.0*)?', word)
  return int(match[1]) if match else None


def _classify_rating(word: str) -> str:
  rating = _parse_number(word)
  if not rating:  # 0 means that the rating is not known.
    return _classify_word(word)
  return 'hard' if rating >= _HARD_RATING else 'easy'


def _classify_code_contests(word: str) -> str:
  # A class by name or by number, or else a rating: ratings are larger than all class numbers.
  number = _parse_number(word)
  if number is None:
    return _CODE_CONTESTS_CLASSES.get(word, '')
  if number < len(_CODE_CONTESTS):
    return _CODE_CONTESTS_CLASSES[_CODE_CONTESTS[number]]
  return _classify_rating(word)


# Keys are names of sets in small letters, without owner and punctuation. Other sets, such as
# LeetCode and LiveCodeBench, say easy, medium and hard.
_RULES: dict[str, Callable[[str], str]] = {
    'apps': lambda word: _APPS.get(word) or _classify_word(word),
    'codecontests': _classify_code_contests,
    'codeforces': _classify_rating,
    'codeforcescots': _classify_rating,
    'mini': lambda word: _MINI.get(word, ''),
}


class TraceProgram(NamedTuple):
  """A trace with the program to be judged, or the reason why it has none."""

  trace: records.Trace
  submission: records.Submission | None
  reason: str = ''


class ProblemIndex:
  """Finds the problem of a trace, by its id or by its statement.

  Sets of traces have ids of their own for the questions that they took from a set of problems.
  Statements are compared by their words, without regard to white space and capitals.
  """

  def __init__(self, problems: Iterable[records.Problem]):
    self._modes: dict[str, records.Mode] = {}
    self._ids: dict[bytes, str] = {}
    for problem in problems:
      self._modes[problem.problem_id] = problem.mode
      if digest := _hash_words(problem.statement):
        self._ids.setdefault(digest, problem.problem_id)
    # Keyed by id and question, since two sets may have one id for different questions.
    self._cache: dict[tuple[str, int], str] = {}

  def find_problem_id(self, trace: records.Trace) -> str:
    """Returns the id of the trace's problem; '' if it is not one of these."""
    name = trace.problem_id
    if name in self._modes:
      return name
    key = name, hash(trace.question)  # Many traces share one question.
    if key not in self._cache:
      self._cache[key] = self._ids.get(_hash_words(trace.question), '')
    return self._cache[key]

  def explain_refusal(self, problem_id: str, language: str) -> str:
    """Returns why a problem's judge does not take a language; '' if it does."""
    if language not in records.LANGUAGES:
      return f'the judge does not run {language}'
    if self._modes[problem_id] in _CALLING_MODES and language != 'python':
      return f'the program is in {language}, and its problem calls Python'
    return ''


def _hash_words(text: str) -> bytes:
  words = ' '.join(re.findall(r'\w+|[^\w\s]', text.lower()))
  if not words:
    return b''
  data = words.encode('utf-8', 'surrogatepass')
  return hashlib.blake2b(data, digest_size=16).digest()


def extract_programs(
    traces: Iterable[records.Trace], problems: ProblemIndex
) -> Iterator[TraceProgram]:
  """Yields every trace with the submission to be judged, or why there is none.

  The yielded trace has the id of the problem that judges it, so that what a student achieves on
  these problems is known for its question, too.

  The submissions of a problem are numbered in order, by `sample_index`; the same traces in the same
  order get the same numbers again.
  """
  numbers: collections.Counter[str] = collections.Counter()
  for trace in traces:
    problem_id = problems.find_problem_id(trace)
    language, source = programs.extract_from_trace(trace)
    if problem_id and problem_id != trace.problem_id:
      trace = records.replace(trace, problem_id=problem_id)
    if not problem_id:
      yield TraceProgram(trace, None, 'its problem is not there')
    elif source is None:
      yield TraceProgram(trace, None, NO_PROGRAM)
    elif reason := problems.explain_refusal(problem_id, language):
      yield TraceProgram(trace, None, reason)
    else:
      submission = records.Submission(
          problem_id=problem_id, sample_index=numbers[problem_id], source=source, language=language
      )
      numbers[problem_id] += 1
      yield TraceProgram(trace, submission)


def _is_same_sample(submission: records.Submission, judgement: records.Judgement) -> bool:
  return records.sample_key(submission) == records.sample_key(judgement)


def join_judgements(
    trace_programs: Iterable[TraceProgram],
    judgements: Iterable[records.Judgement],
    *,
    all_tests: bool,
    is_judgement_of: Callable[[records.Submission, records.Judgement], bool] = _is_same_sample,
) -> Iterator[records.Trace]:
  """Yields the traces with `is_correct` and `pass_rate` by execution.

  Args:
    trace_programs: The output of `extract_programs`.
    judgements: Judgements of the submissions, in their order.
    all_tests: Whether programs continued after a failed test; if they did not, the pass rate of a
      failed program is unknown.
    is_judgement_of: Whether a judgement belongs to a submission.

  Raises:
    UserError: a judgement is missing, belongs to another submission, or is left over.
  """
  rows = iter(judgements)
  for trace, submission, reason in trace_programs:
    if submission is None:
      # Judged like a completion without a program: wrong.
      is_known = reason == NO_PROGRAM
      yield records.replace(
          trace, is_correct=False if is_known else None, pass_rate=0.0 if is_known else None
      )
      continue
    row = next(rows, None)
    if row is None or not is_judgement_of(submission, row):
      raise errors.UserError(
          f'Trace {trace.trace_id} (sample {records.sample_key(submission)}) has no judgement of'
          ' its program by these tests and rules; run `execute` on the submissions to the end, with'
          ' the same config, and join again.'
      )
    is_correct, pass_rate = _read_verdict(row, all_tests)
    yield records.replace(trace, is_correct=is_correct, pass_rate=pass_rate)
  if (row := next(rows, None)) is not None:
    raise errors.UserError(
        f'There is a judgement of {records.sample_key(row)}, and no trace has that program; run'
        ' `execute` on the submissions again, and join again.'
    )


def _read_verdict(row: records.Judgement, all_tests: bool) -> tuple[bool | None, float | None]:
  """Returns whether a program is correct, and its pass rate; None where that is not known."""
  if not row.verdict.concerns_program:
    return None, None
  is_correct = row.verdict is records.Verdict.ACCEPTED
  if is_correct or row.verdict is records.Verdict.COMPILE_ERROR:
    return is_correct, float(is_correct)
  return is_correct, row.tests_passed / row.num_tests if all_tests else None
