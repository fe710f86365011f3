"""Words claim what the intervals support, and no more."""

from valley_jax.analysis import curve
from valley_jax.analysis import findings


def _point(num_traces, value):
  return curve.Point(
      num_traces=num_traces,
      seeds=(0,),
      pass_at_1=value,
      interval=(value - 0.05, value + 0.05),
      by_seed=(value,),
  )


def _curve(lowest, largest, edge=None):
  """Sizes 16 and 64 against a base of 30 %; (difference, low, high) each."""
  changes = tuple(
      curve.Change(num_traces=size, difference=d, interval=(low, high), num_compared=2)
      for size, (d, low, high) in ((16, lowest), (64, largest))
  )
  return curve.Curve(
      num_problems=10,
      baseline=_point(0, 0.3),
      points=(_point(16, 0.3 + lowest[0]), _point(64, 0.3 + largest[0])),
      changes=changes,
      lowest=changes[0],
      edge=edge,
      below_half=(),
  )


_FALL, _RISE = (-0.2, -0.3, -0.1), (0.1, 0.05, 0.15)
_DIP, _GAIN = (-0.01, -0.1, 0.08), (0.01, -0.1, 0.12)


def test_a_fall_beyond_the_noise_is_a_valley():
  found = _curve(_FALL, _RISE)
  assert findings.headline(found) == 'There is a valley, 20.0 points deep.'
  assert 'corrected for picking the lowest of 2 sizes' in findings.verdict(found)
  assert '64 traces beat the base student' in findings.verdict(found)


def test_a_dip_within_the_noise_is_not_called_a_valley():
  found = _curve(_DIP, _GAIN)
  assert findings.headline(found) == 'A dip, but not beyond the noise.'
  assert 'not shown to differ' in findings.verdict(found)


def test_a_curve_that_may_fall_is_not_said_to_have_no_valley():
  assert findings.headline(_curve(_GAIN, _RISE)) == ('No dip is seen, nor ruled out.')


def test_a_curve_that_never_falls_has_no_valley():
  found = _curve(_RISE, _RISE)
  assert findings.headline(found) == 'There is no valley at these sizes.'
  assert 'no size is below' in findings.verdict(found)


def test_a_curve_that_ends_below_says_so():
  found = _curve(_FALL, _FALL)
  assert 'does not re-cross' in findings.verdict(found)
  assert '64 traces stay below' in findings.verdict(found)


def test_an_open_end_of_the_edge_is_said_in_words():
  edge = curve.Edge(num_traces=32.0, low=None, high=None)
  said = findings.verdict(_curve(_FALL, _RISE, edge))
  assert '32 traces (below the smallest size to beyond the largest size)' in said


def test_nothing_known_is_a_dash_and_not_zero():
  assert findings.percent(None) == '–'
  assert findings.percent(0.0) == '0.0\N{NO-BREAK SPACE}%'
