"""Outputs are compared as a careful reader would."""

import json
import time
import tracemalloc

import pytest

from valley_jax.execution import checkers

DEEP = 100_000


def is_accepted(name, expected, printed, *flags):
  expected, printed = (
      text if isinstance(text, bytes) else text.encode() for text in (expected, printed)
  )
  return checkers.build_checker(name, flags)(expected, printed)


@pytest.mark.parametrize('name', ['tokens', 'case', 'float', 'kattis'])
@pytest.mark.parametrize(
    'expected, printed',
    [(b'1 2\n', b'1 2'), (b'1\n2\n', b' 1\t2\r\n'), (b'', b'\n'), (b'', b''),
     (b'\xff\x00', b'\xff\x00\n'), (b'1\x0b2', b'1\x0c2')],
)  # fmt: skip
def test_tokens_forgive_whitespace(name, expected, printed):
  assert is_accepted(name, expected, printed)


@pytest.mark.parametrize('name', ['tokens', 'case', 'float', 'kattis'])
@pytest.mark.parametrize(
    'expected, printed',
    [('1000', '1_000'), ('1 2 3', '1 2'), ('1 2', '1 2 3'), ('1', ''),
     ('', '1'), ('12', '1 2'), ('100001', '100000'),
     ('9007199254740993', '9007199254740992'), ('1', '１'), ('1', 'True'),
     ('1000000', '1000001'), ('16', '0x10'),
     ('1', '\ufeff1'), ('1 2', '1\xa02'), ('1 2', '1\u20032'), ('1', '1\0'),
     ('inf', '1'), ('word', 'words')],
)  # fmt: skip
def test_tokens_forgive_nothing_else(name, expected, printed):
  assert not is_accepted(name, expected, printed)


@pytest.mark.parametrize('name', ['tokens', 'case'])
@pytest.mark.parametrize('printed', ['1.0', '+1', '01', '1e0'])
def test_an_integer_is_text_where_no_number_is_expected(name, printed):
  assert not is_accepted(name, '1', printed)


@pytest.mark.parametrize(
    'expected, printed',
    [('3', '3.0'), ('-1', '-1.0'), ('0', '-0'), ('1', '+1'), ('10', '1e1'), ('1' * 99, '1' * 99)],
)
def test_an_integer_has_one_value_among_floats(expected, printed):
  assert is_accepted('float', expected, printed)
  assert not is_accepted('float', expected, printed + '5')


@pytest.mark.parametrize(
    'expected, printed', [('3', '3.0000001'), ('9007199254740993', '9007199254740992.0'),
                          ('1', '1e999999999'), ('1', '1e' + '9' * 30), ('1', '1.' + '0' * 5000)],
)  # fmt: skip
def test_an_integer_has_no_tolerance(expected, printed):
  assert not is_accepted('float', expected, printed)


def test_bytes_that_are_no_text_are_compared_as_they_are():
  assert is_accepted('tokens', b'\xff\xfe', b'\xff\xfe ')
  assert not is_accepted('tokens', b'\xff', b'\xfe')
  assert not is_accepted('tokens', '\ufffd', b'\xff')


def test_only_tokens_ignore_case_where_it_is_asked_for():
  assert not is_accepted('tokens', 'yes', 'YES')
  assert not is_accepted('float', 'yes', 'YES')
  assert is_accepted('case', 'Yes', 'yES')
  assert is_accepted('kattis', 'Yes', 'yES')
  assert not is_accepted('kattis', 'Yes', 'yES', 'case_sensitive')
  assert not is_accepted('case', 'ä', 'Ä')  # ASCII letters alone.


def test_tokens_are_not_cut_where_the_text_is():
  words = b'a' * (3 * checkers.CHUNK_BYTES // 2) + b' b ' + b'c' * checkers.CHUNK_BYTES
  assert is_accepted('tokens', words, b'\n' + words)  # Cut at another place.
  assert not is_accepted('tokens', words, words.replace(b' b ', b'b '))
  assert not is_accepted('tokens', words, words[: checkers.CHUNK_BYTES])


@pytest.mark.parametrize(
    'expected, printed, verdict',
    [(b'a b\nc\n', b'a b \nc', True), (b'a\nb', b'a\r\nb\r\n\r\n \n', True),
     (b'', b'\n\n', True), (b'', b'', True), (b'a\n\nb', b'a\n \nb', True),
     (b'a b', b'a  b', False), (b'a', b' a', False), (b'a', b'\na', False),
     (b'a\nb', b'a\n\nb', False), (b'a\nb', b'a b', False),
     (b'a\nb', b'a', False), (b'a', b'a\nb', False), (b'a\nb', b'a\rb', False)],
)  # fmt: skip
def test_lines_forgive_whitespace_at_their_ends(expected, printed, verdict):
  assert is_accepted('lines', expected, printed) is verdict


def test_exact_forgives_nothing():
  assert is_accepted('exact', '1\n', '1\n')
  assert not is_accepted('exact', '1\n', '1')
  assert not is_accepted('exact', '1\n', '1\r\n')


@pytest.mark.parametrize(
    'expected, printed, verdict',
    [('1 2\n3 4', '3  4\n\n1 2\n', True), ('', '\n', True),
     ('1\n1\n2', '1\n2\n2', False), ('1\n2', '1\n2\n2', False),
     ('1\n2', '1', False), ('1', '', False), ('1 2', '2 1', False),
     ('1\n2', '1 2', False)],
)  # fmt: skip
def test_unordered_lines_are_a_multiset(expected, printed, verdict):
  assert is_accepted('unordered', expected, printed) is verdict


@pytest.mark.parametrize(
    'expected, printed',
    [('0.3', repr(0.1 + 0.2)), ('0.3', '.3'), ('3.0', '3'), ('3.', '+3'),
     ('1e3', '1000'), ('1000.0', '1E+03'), ('0.0', '-0.0'), ('-0.0', '0'),
     ('nan', 'NaN'), ('nan', '-nan'), ('inf', 'Infinity'), ('-inf', '-INF'),
     ('1.0 x 2', '1 x 2'), ('1e9', '1000000999'), ('1e999999999',) * 2],
)  # fmt: skip
def test_floats_may_be_near_and_spelled_in_any_way(expected, printed):
  assert is_accepted('float', expected, printed)


@pytest.mark.parametrize(
    'expected, printed',
    [('0.3', '0.300002'), ('1e9', '1000002000'), ('1.0', 'nan'),
     ('nan', '1.0'), ('inf', '-inf'), ('inf', '1e308'), ('1e308', 'inf'),
     ('1.0', '1_0e-1'), ('16.0', '0x10'), ('1.0', 'True'), ('1.0', ''),
     ('1.0', '1.0 1.0'), ('1.0', '1.0x'), ('1.0', '١'), ('inf', '1e999'),
     ('1e400', '1e500'), ('1.0', '1e999999999'), ('-1.0', '1.0'),
     ('1.0 2 3', '1.0 2'), ('infinit', 'inf'), ('.', '0')],
)  # fmt: skip
def test_floats_are_not_far_and_not_spelled_in_code(expected, printed):
  assert not is_accepted('float', expected, printed)


def test_flags_set_the_tolerance():
  assert is_accepted('float', '1.0', '1.05', 'float_tolerance', '0.1')
  assert not is_accepted('float', '1.0', '1.05', 'float_tolerance', '1e-3')
  absolute = 'float_absolute_tolerance', '1e-3'
  relative = 'float_relative_tolerance', '1e-3'
  assert is_accepted('float', '0.0', '1e-3', *absolute)
  assert not is_accepted('float', '0.0', '1e-3', *relative)
  assert is_accepted('float', '1e6', '1000999', *relative)
  assert not is_accepted('float', '1e6', '1000999', *absolute)
  assert is_accepted('float', '0.0 1e6', '1e-3 1000999', *absolute, *relative)
  assert is_accepted('json', '[1.0]', '[1.05]', 'float_tolerance', '0.1')


def test_kattis_takes_integers_for_floats_with_a_tolerance_only():
  tolerance = 'float_tolerance', '1e-6'
  assert is_accepted('kattis', '3 -1 yes', '3.0000001 -1.0 Yes', *tolerance)
  assert not is_accepted('kattis', '3', '3.0')
  assert not is_accepted('kattis', '0.0314', '3.14e-2')
  assert is_accepted('kattis', '0.0314', '3.14e-2', *tolerance)
  assert not is_accepted('kattis', 'a', '1', *tolerance)
  assert not is_accepted('kattis', '1', 'a', *tolerance)
  assert not is_accepted('kattis', 'A 1', 'a 1', 'case_sensitive', *tolerance)


@pytest.mark.parametrize(
    'printed, verdict',
    [('1 2\n3\n', True), ('1 2\n3', False), ('1  2\n3\n', False),
     ('1\n2\n3\n', False), (' 1 2\n3\n', False), ('1 2\n3.0\n', True),
     ('12 \n3\n', False), ('1 2\r\n3\n', False)],
)  # fmt: skip
def test_kattis_can_hold_spaces_fast(printed, verdict):
  flags = 'space_change_sensitive', 'float_tolerance', '0'
  assert is_accepted('kattis', '1 2\n3\n', printed, *flags) is verdict


def test_any_of_takes_each_of_the_listed_texts():
  expected = json.dumps(['1 2', 'no', 'ä'])
  assert all(is_accepted('any_of', expected, x) for x in ('1\n2\n', 'no', 'ä'))
  assert not any(is_accepted('any_of', expected, x) for x in ('1', '', 'No'))
  assert not is_accepted('any_of', '[]', '')
  for wrong in ('1 2', '"1"', '[1]', '{"1": 2}', '[' * DEEP):
    with pytest.raises(ValueError, match='mend'):
      is_accepted('any_of', wrong, '1')


def test_json_is_compared_in_type_and_value():
  assert is_accepted('json', '{"a": [1, 0.5]}', ' {"a":\n[1, 0.500001]}')
  assert is_accepted('json', 'NaN', 'NaN')
  for printed in ('[1, 2', '[1,2] 3', '', '[true, 2]', '[1.0, 2]', '(1, 2)',
                  '\ufeff[1, 2]', b'\xff', '[1, 2]'.encode('utf-16'),
                  '[' * DEEP + ']' * DEEP):  # fmt: skip
    assert not is_accepted('json', '[1, 2]', printed)
  with pytest.raises(ValueError, match='no JSON.*mend'):
    is_accepted('json', '[1', '[1')


@pytest.mark.parametrize(
    'name, flags, words',
    [('token', (), 'token.*tokens, lines.*program'),
     ('program', (), 'no checker of texts'),
     ('lines', ('case_sensitive',), 'case_sensitive.*lines.*none'),
     ('float', ('case_sensitive',), 'float_absolute_tolerance'),
     ('kattis', ('float_tolerence', '1'), 'float_tolerence.*float_tolerance'),
     ('kattis', ('float_tolerance',), "is ''.*from 0 up"),
     ('kattis', ('float_tolerance', '-1e-6'), '-1e-6'),
     ('kattis', ('float_tolerance', 'nan'), 'nan'),
     ('kattis', ('float_tolerance', 'inf'), 'inf'),
     ('kattis', ('float_tolerance', '1e-6', '1e-6'), '1e-6')],
)  # fmt: skip
def test_what_is_not_known_is_named(name, flags, words):
  with pytest.raises(ValueError, match=words):
    checkers.build_checker(name, flags)


@pytest.mark.parametrize(
    'expected, returned',
    [(0.3, 0.1 + 0.2), (2.0, 2), ([1, [2]], [1, [2]]), ({'a': 1}, {'a': 1}),
     (None, None), (float('nan'), float('nan')), (0.33333, 1 / 3),
     (0.0, -0.0), (float('inf'), float('inf')), ('é', 'é'), (True, True)],
)  # fmt: skip
def test_equal_json(expected, returned):
  assert checkers.equal_json_values(expected, returned)


@pytest.mark.parametrize(
    'expected, returned',
    [(1, True), (True, 1), (1.0, True), (1, 1.0), ('1', 1), ([1], [1, 2]),
     ({'a': 1}, {'a': 1, 'b': 2}), (None, 0), (0.5, 0.6), (1.0, 10**400),
     ([], {}), (0.5, '0.5'), (1.0, None), ([1, 2], [1]), ([0], [False]),
     ({'a': 1}, {'b': 1}), (1.0, float('inf')), (float('-inf'), -1e308),
     (float('nan'), 0.0), (0.0, float('nan')), ([[1], 2], [[2], 2])],
)  # fmt: skip
def test_unequal_json(expected, returned):
  assert not checkers.equal_json_values(expected, returned)


def build_nested_value(depth, core):
  value = core
  for _ in range(depth):
    value = [{'a': value, 'b': 0}]
  return value


def test_deep_values_are_compared_to_their_end():
  assert checkers.equal_json_values(build_nested_value(DEEP, 1), build_nested_value(DEEP, 1))
  assert not checkers.equal_json_values(build_nested_value(DEEP, 1), build_nested_value(DEEP, 2))
  assert not checkers.equal_json_values(
      build_nested_value(DEEP, 1), build_nested_value(DEEP + 1, 1)
  )


def test_deep_texts_are_an_error_of_their_own():
  with pytest.raises(ValueError, match='no JSON'):
    checkers.parse_json('[' * DEEP)


def test_integers_of_any_length_are_read_exactly():
  digits = '-' + '123456789' * 1000
  value = checkers.parse_json(digits, checkers.parse_exact_int)
  assert type(value) is int
  assert value < 0
  assert value % 10**18 == -int('123456789' * 2) % 10**18
  assert -value // 10**8990 == 1234567891
  assert checkers.parse_json('12') == 12
  assert is_accepted('json', digits, digits)
  assert not is_accepted('json', digits, digits + '0')
  assert not is_accepted('json', digits, digits[:-1] + '8')


@pytest.mark.parametrize('name', ['tokens', 'float', 'kattis', 'lines',
                                  'unordered', 'json', 'case'])  # fmt: skip
def test_hostile_outputs_end_soon(name):
  flags = ('float_tolerance', '1e-6') if name in ('float', 'kattis') else ()
  long = 1 << 21
  start = time.process_time()
  for printed in (b'1' * long, b'.' * long, b'1' * long + b'x', b'[' * long,
                  b'1.' + b'1' * long + b'x', b' ' * long, b'\n' * long,
                  b'\r' * long + b'x', b'1 ' * long, b'1e999999999',
                  b'1e-999999999', b'1e' + b'9' * long):  # fmt: skip
    assert not is_accepted(name, b'0.5', printed, *flags)
  assert time.process_time() - start < 15  # One, on a quick machine.


def test_an_early_difference_ends_the_comparison():
  expected = b'0 ' * (1 << 22)
  tracemalloc.start()
  assert not is_accepted('tokens', expected, b'1 ' * (1 << 22))
  assert not is_accepted('tokens', expected, expected[:-2])
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 4 * len(expected)  # Split at once it were 17 times as much.
