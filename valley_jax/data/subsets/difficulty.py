"""Is a question easy or hard? One rule a set, as sets name it differently.

Two classes, as in *The Valley of Code Reasoning* (2510.06101): a third between
them would be left out of both of its sets. TACO's rule is the paper's, in which
MEDIUM is easy. The other rules are chosen here to agree with it.
"""

from collections.abc import Callable
import re

from valley_jax import records

_HARD_RATING = 1600  # Of Codeforces: an expert's.

# The paper's, and that of any set that uses these words.
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


def of_trace(trace: records.Trace) -> str:
  """Returns 'easy' or 'hard', or '' if that cannot be told."""
  name = re.sub('[^a-z]', '', trace.source.lower().rpartition('/')[2])
  word = re.sub('[ -]+', '_', trace.difficulty.strip().lower())
  return _RULES.get(name, _by_words)(word)


def _by_words(word: str) -> str:
  return _WORDS.get(word, '')


def _number(word: str) -> int | None:
  """Returns what '1500' and '1500.0' say."""
  found = re.fullmatch(r'([0-9]{1,5})(\.0*)?', word)
  return int(found[1]) if found else None


def _by_rating(word: str) -> str:
  rating = _number(word)
  if not rating:  # 0 is one that is not known.
    return _by_words(word)
  return 'hard' if rating >= _HARD_RATING else 'easy'


def _of_code_contests(word: str) -> str:
  """A class by name or number, or a rating, which is above all numbers."""
  number = _number(word)
  if number is None:
    return _CODE_CONTESTS_CLASSES.get(word, '')
  if number < len(_CODE_CONTESTS):
    return _CODE_CONTESTS_CLASSES[_CODE_CONTESTS[number]]
  return _by_rating(word)


# By a set's name in small letters, without its owner and its signs. Others,
# such as LeetCode and LiveCodeBench, say easy, medium and hard.
_RULES: dict[str, Callable[[str], str]] = {
    'apps': lambda word: _APPS.get(word) or _by_words(word),
    'codecontests': _of_code_contests,
    'codeforces': _by_rating,
    'codeforcescots': _by_rating,
    'mini': lambda word: _MINI.get(word, ''),
}
