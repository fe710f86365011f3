"""Finds where a text is one phrase over and over, as `sampling` finds it.

`sampling/stops.py` ends a sample whose last so many tokens are one phrase, four
times or more. Here the text is whole, and counted in characters: it loops if
anywhere in it so many characters are one phrase, four times or more.
"""

_TIMES = 4


def has_loop(text: str, length: int) -> bool:
  """Says whether `length` characters in a row are one phrase, repeated.

  Exact repetitions only: a list whose numbers count up is none. Takes time
  linear in the text.

  Args:
    text: Any.
    length: At least 8.

  Example:
    >>> has_loop('So: ' + 'wait, ' * 20, 100)
    True
  """
  # Such characters hold one of these blocks whole, and it is the same phrase at
  # least twice. Its smallest period then is theirs, too (Fine and Wilf).
  half = length // 2
  for start in range(0, len(text) - half + 1, half):
    period = _period(text[start : start + half])
    if period and period <= length // _TIMES:
      if _run(text, start, period, length) >= length:
        return True
  return False


def _period(block: str) -> int:
  """Returns the least period of at most half a block; 0 if there is none."""
  # If there is one, its phrase fits in the head, and so the head comes again
  # just where the least one ends, and nowhere before.
  period = block.find(block[: len(block) // 2], 1)
  if period < 0 or block[period:] != block[:-period]:
    return 0
  return period


def _run(text: str, start: int, period: int, enough: int) -> int:
  """Returns how many characters around `start` have a period, up to enough."""
  first, last = start, start + period
  while first > 0 and last - first < enough:
    if text[first - 1] != text[first - 1 + period]:
      break
    first -= 1
  while last < len(text) and last - first < enough:
    if text[last] != text[last - period]:
      break
    last += 1
  return last - first
