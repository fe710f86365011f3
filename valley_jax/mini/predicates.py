"""Conditions on an integer, and chains of definitions that build on them.

A chain is a tuple of links, the basic definition first. Every further link
names the one before it and adds one condition:

    A calm number is even.                  x % 2 == 0
    A proud number is calm and below 45.    x % 2 == 0 and x < 45
    A wild number is odd but not proud.     not (...) and x % 2 == 1

A chain has three faces: English (`Link.sentence`), the unfolded Python
expression (`code`), and its truth table over `DOMAIN` as the bits of one
integer (`truth`). The table makes exact questions cheap: whether two chains
mean the same, whether a link is idle, whether a slip changes the meaning.
"""

from collections.abc import Sequence
import dataclasses
import enum
import functools

DOMAIN = range(-128, 128)  # All numbers that ever occur in a test.
EVERYTHING = (1 << len(DOMAIN)) - 1  # The truth table of `True`.


@dataclasses.dataclass(frozen=True)
class Remainder:
  """x leaves `remainder` when divided by `modulus`: 0, or 1 for odd."""

  modulus: int
  remainder: int

  @property
  def phrase(self) -> str:
    """What follows 'is'."""
    if self.modulus == 2:
      return 'odd' if self.remainder else 'even'
    return f'a multiple of {self.modulus}'

  @property
  def code(self) -> str:
    """The condition in Python."""
    return f'x % {self.modulus} == {self.remainder}'

  def holds(self, x: int) -> bool:
    """Whether x satisfies the condition."""
    return x % self.modulus == self.remainder

  def misread(self) -> tuple['Condition', ...]:
    """The same condition with its constant read wrongly."""
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
    """What follows 'is'."""
    return f'{"below" if self.sign == "<" else "above"} {self.limit}'

  @property
  def code(self) -> str:
    """The condition in Python."""
    return f'x {self.sign} {self.limit}'

  def holds(self, x: int) -> bool:
    """Whether x satisfies the condition."""
    return x < self.limit if self.sign == '<' else x > self.limit

  def misread(self) -> tuple['Condition', ...]:
    """The same condition with its constant or its side read wrongly."""
    return (
        Bound(self.sign, self.limit - 1),
        Bound(self.sign, self.limit + 1),
        Bound('>' if self.sign == '<' else '<', self.limit),
    )


Condition = Remainder | Bound


class Connective(enum.Enum):
  """How a link joins its condition to the definition before it."""

  AND = 'and'
  OR = 'or'
  NOT = 'but not'  # The condition holds and the earlier definition does not.


@dataclasses.dataclass(frozen=True)
class Link:
  """One definition. `connective` and `refers_to` are unused in a basic one."""

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


@functools.cache
def condition_truth(condition: Condition) -> int:
  """Returns the truth table of one condition: bit i is that of DOMAIN[i]."""
  return sum(1 << i for i, x in enumerate(DOMAIN) if condition.holds(x))


def truth(chain: Sequence[Link]) -> int:
  """Returns the truth table of the chain's last definition."""
  table = condition_truth(chain[0].condition)
  for link in chain[1:]:
    condition = condition_truth(link.condition)
    match link.connective:
      case Connective.AND:
        table &= condition
      case Connective.OR:
        table |= condition
      case Connective.NOT:
        table = ~table & condition
  return table


def unfold(chain: Sequence[Link]) -> list[str]:
  """Returns for every link its predicate in Python, basic definition first.

  What came before is bracketed as soon as it has more than one part, even
  where Python's precedence would not need it: one rule, so that a student
  copies the line before and never has to look ahead.
  """
  codes = [chain[0].condition.code]
  for link in chain[1:]:
    before = codes[-1]
    if len(codes) > 1 or link.connective is Connective.NOT:
      before = f'({before})'
    if link.connective is Connective.NOT:
      codes.append(f'not {before} and {link.condition.code}')
    else:
      word = link.connective.value
      codes.append(f'{before} {word} {link.condition.code}')
  return codes


def satisfies(x: int, table: int) -> bool:
  """Returns whether x, a number of DOMAIN, is in the truth table."""
  return bool(table >> (x - DOMAIN.start) & 1)


def members(table: int) -> list[int]:
  """Returns the numbers of DOMAIN that are in the truth table."""
  return [x for x in DOMAIN if satisfies(x, table)]


def without(chain: Sequence[Link], index: int) -> tuple[Link, ...]:
  """Returns the chain with one link dropped, its neighbours joined."""
  return (*chain[:index], *chain[index + 1 :])
