"""The argument of a config file is read by the types of its defaults."""

import pytest

from valley_jax.runtime import entry


def test_values_take_the_type_of_their_default():
  a = entry.parse_config_argument('seeds=3,lr=1,student=tiny', seeds=1, lr=0.5, student='')
  assert (a.seeds, a.lr, a.student) == (3, 1.0, 'tiny')
  assert isinstance(a.lr, float)


@pytest.mark.parametrize('arg', [None, '', ','])
def test_an_empty_argument_leaves_the_defaults(arg):
  assert entry.parse_config_argument(arg, mini=False, seeds=2).to_dict() == {
      'mini': False,
      'seeds': 2,
  }


@pytest.mark.parametrize(('arg', 'mini'), [('mini', True), ('mini=false', False), ('mini=1', True)])
def test_a_bare_name_means_true(arg, mini):
  assert entry.parse_config_argument(arg, mini=not mini).mini is mini


@pytest.mark.parametrize('arg', ['mini=yes', 'seeds=1.5', 'seeds', 'lr=fast'])
def test_a_value_of_another_type_is_refused(arg):
  with pytest.raises(ValueError, match=arg.partition('=')[0]):
    entry.parse_config_argument(arg, mini=False, seeds=1, lr=0.5)


def test_an_unknown_name_is_refused_and_the_known_ones_are_named():
  with pytest.raises(ValueError, match='nois.*lr, seeds'):
    entry.parse_config_argument('nois=1', seeds=1, lr=0.5)
