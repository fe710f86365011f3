"""Outputs are compared as a careful reader would."""

import pytest

from valley_jax.execution import checkers


@pytest.mark.parametrize(
    'expected, printed',
    [(b'1 2\n', b'1 2'), (b'1\n2\n', b' 1\t2\r\n'), (b'', b'\n'),
     (b'\xff', b'\xff\n')],
)  # fmt: skip
def test_tokens_forgive_whitespace(expected, printed):
  assert checkers.tokens(expected, printed)


@pytest.mark.parametrize(
    'expected, printed',
    [(b'1000', b'1_000'), (b'1 2 3', b'1 2'), (b'1 2', b'1 2 3'),
     (b'12', b'1 2'), (b'yes', b'YES'), (b'100001', b'100000'),
     (b'9007199254740993', b'9007199254740992'), (b'1', b'1.0'),
     (b'1', 'ï¼‘'.encode())],
)  # fmt: skip
def test_tokens_forgive_nothing_else(expected, printed):
  assert not checkers.tokens(expected, printed)


def test_exact_forgives_nothing():
  assert checkers.exact(b'1\n', b'1\n')
  assert not checkers.exact(b'1\n', b'1')


@pytest.mark.parametrize(
    'expected, returned',
    [(0.3, 0.1 + 0.2), (2.0, 2), ([1, [2]], [1, [2]]), ({'a': 1}, {'a': 1}),
     (None, None), (float('nan'), float('nan')), (0.33333, 1 / 3)],
)  # fmt: skip
def test_equal_json(expected, returned):
  assert checkers.equal_json(expected, returned)


@pytest.mark.parametrize(
    'expected, returned',
    [(1, True), (True, 1), (1.0, True), (1, 1.0), ('1', 1), ([1], [1, 2]),
     ({'a': 1}, {'a': 1, 'b': 2}), (None, 0), (0.5, 0.6), (1.0, 10**400),
     ([], {}), (0.5, '0.5'), (1.0, None)],
)  # fmt: skip
def test_unequal_json(expected, returned):
  assert not checkers.equal_json(expected, returned)


def test_integers_of_any_length_are_read_exactly():
  digits = '-' + '123456789' * 1000
  value = checkers.parse_json(digits)
  assert value < 0
  assert value % 10**18 == -int('123456789' * 2) % 10**18
  assert checkers.parse_json('12') == 12
