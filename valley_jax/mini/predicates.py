"""Conditions on an integer, and chains of definitions that build on each other.

A chain is a tuple of definitions, the basic one first. Every further definition refers to the one
before it and adds one condition:

    A calm number is even.                  x % 2 == 0
    A proud number is calm and below 45.    x % 2 == 0 and x < 45
    A wild number is odd but not proud.     not (...) and x % 2 == 1

A chain has three forms: English sentences (`Definition.sentence`), a Python expression
(`unfold_chain`), and its truth table over DOMAIN as the bits of one integer (`tabulate_chain`). The
table answers exact questions cheaply: whether two chains mean the same, whether a definition has no
effect, whether a mistake changes the meaning.
"""

from collections.abc import Sequence
import dataclasses
import enum
import functools

DOMAIN = range(-128, 128)  # All numbers that occur in tests.
EVERYTHING = (1 << len(DOMAIN)) - 1  # The truth table of `True`.


@dataclasses.dataclass(frozen=True)
class Remainder:
  """x leaves `remainder` when divided by `modulus`: 0, or 1 for odd."""

  modulus: int
  remainder: int

  @property
  def phrase(self) -> str:
    """The English words after 'is'."""
    if self.modulus == 2:
      return 'odd' if self.remainder else 'even'
    return f'a multiple of {self.modulus}'

  @property
  def code(self) -> str:
    """The condition in Python."""
    return f'x % {self.modulus} == {self.remainder}'

  def is_satisfied(self, x: int) -> bool:
    return x % self.modulus == self.remainder

  def list_misreadings(self) -> tuple['Condition', ...]:
    """The same condition with a wrong constant."""
    if self.modulus == 2:
      return (Remainder(2, 1 - self.remainder),)
    other = (self.remainder + 1) % self.modulus
    return (Remainder(self.modulus + 1, self.remainder), Remainder(self.modulus, other))


@dataclasses.dataclass(frozen=True)
class Bound:
  """x is on one side of `limit`; `sign` is '<' or '>'."""

  sign: str
  limit: int

  @property
  def phrase(self) -> str:
    """The English words after 'is'."""
    return f'{"below" if self.sign == "<" else "above"} {self.limit}'

  @property
  def code(self) -> str:
    """The condition in Python."""
    return f'x {self.sign} {self.limit}'

  def is_satisfied(self, x: int) -> bool:
    return x < self.limit if self.sign == '<' else x > self.limit

  def list_misreadings(self) -> tuple['Condition', ...]:
    """The same condition with a wrong constant or the wrong side."""
    other_sign = '>' if self.sign == '<' else '<'
    return (
        Bound(self.sign, self.limit - 1),
        Bound(self.sign, self.limit + 1),
        Bound(other_sign, self.limit),
    )


Condition = Remainder | Bound


class Connective(enum.Enum):
  """How a definition joins its condition to the definition before it."""

  AND = 'and'
  OR = 'or'
  NOT = 'but not'  # The condition is true and the earlier definition is not.


@dataclasses.dataclass(frozen=True)
class Definition:
  """One definition. A basic one does not use `connective` and `refers_to`."""

  name: str
  condition: Condition
  connective: Connective = Connective.AND
  refers_to: str = ''

  @property
  def sentence(self) -> str:
    """The definition in English."""
    start = f'A {self.name} number is'
    phrase, word = self.condition.phrase, self.connective.value
    if not self.refers_to:
      return f'{start} {phrase}.'
    if self.connective is Connective.NOT:
      return f'{start} {phrase} {word} {self.refers_to}.'
    return f'{start} {self.refers_to} {word} {phrase}.'


Chain = tuple[Definition, ...]


@functools.cache
def tabulate_condition(condition: Condition) -> int:
  """Returns the truth table of one condition: bit i is its value for DOMAIN[i]."""
  return sum(1 << i for i, x in enumerate(DOMAIN) if condition.is_satisfied(x))


def tabulate_chain(chain: Sequence[Definition]) -> int:
  """Returns the truth table of the chain's last definition."""
  table = tabulate_condition(chain[0].condition)
  for definition in chain[1:]:
    condition = tabulate_condition(definition.condition)
    match definition.connective:
      case Connective.AND:
        table &= condition
      case Connective.OR:
        table |= condition
      case Connective.NOT:
        table = ~table & condition
  return table


def unfold_chain(chain: Sequence[Definition]) -> list[str]:
  """Returns the predicate of every definition in Python, the basic one first.

  What came before is bracketed as soon as it has more than one part, even where Python's precedence
  would not need it. With this one rule a student copies the line before and never looks ahead.
  """
  codes = [chain[0].condition.code]
  for definition in chain[1:]:
    before, connective = codes[-1], definition.connective
    if len(codes) > 1 or connective is Connective.NOT:
      before = f'({before})'
    start = f'not {before} and' if connective is Connective.NOT else f'{before} {connective.value}'
    codes.append(f'{start} {definition.condition.code}')
  return codes


def is_member(x: int, table: int) -> bool:
  """Returns whether x, a number of DOMAIN, is true in the truth table."""
  return bool(table >> (x - DOMAIN.start) & 1)


def list_members(table: int) -> list[int]:
  """Returns the numbers of DOMAIN that are true in the truth table."""
  return [x for x in DOMAIN if is_member(x, table)]


def drop_definition(chain: Chain, index: int) -> Chain:
  """Returns the chain without one definition; its neighbours are joined."""
  return (*chain[:index], *chain[index + 1 :])
