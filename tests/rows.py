"""Makes rows of the flow; a test names the fields that its claim is about."""

from typing import Any

from valley_jax import records


def make_problem(problem_id: str = 'p', **fields: Any) -> records.Problem:
  """A problem with one test."""
  tests = (records.TestCase(input='1', expected='1'),)
  return records.Problem(**{'problem_id': problem_id, 'statement': '', 'tests': tests, **fields})


def make_submission(sample_index: int = 0, **fields: Any) -> records.Submission:
  """A program."""
  defaults = {'problem_id': 'p', 'sample_index': sample_index, 'source': '1'}
  return records.Submission(**{**defaults, **fields})


def make_completion(
    problem_id: str = 'p', sample_index: int = 0, text: str = '', **fields: Any
) -> records.Completion:
  """A completion that ended by itself."""
  defaults = {
      'problem_id': problem_id,
      'sample_index': sample_index,
      'text': text,
      'finish_reason': records.FinishReason.EOS,
      'num_prompt_tokens': 1,
      'tokens': (1, 2, 3),
      'log_prob': -1.0,
  }
  return records.Completion(**{**defaults, **fields})


def make_judgement(
    problem_id: str = 'p',
    sample_index: int = 0,
    verdict: records.Verdict | str = records.Verdict.ACCEPTED,
    **fields: Any,
) -> records.Judgement:
  """A judgement by one test; a verdict may be given by its abbreviation."""
  defaults = {
      'problem_id': problem_id,
      'sample_index': sample_index,
      'verdict': records.Verdict(verdict),
      'tests_passed': 0,
      'num_tests': 1,
      'first_failed': None,
      'cpu_seconds': 0.0,
      'wall_seconds': 0.0,
      'memory_mib': 0.0,
      'tier': 'T0',
  }
  return records.Judgement(**{**defaults, **fields})
