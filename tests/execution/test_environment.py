"""What programs written for other judges expect of the place in which they run."""

import pytest

from tests import judged
from tests import leftovers
from valley_jax import records

PROBLEM = judged.build_problem(('', 'ok'), limits=records.Limits(cpu_seconds=5.0, memory_mib=1024))
PYTHON = {
    'its own file': 'print("ok" if open(__file__).read().startswith("print") else "no")',
    'its own source': """
import inspect
def f(): pass
print("ok" if inspect.getsource(f) == "def f(): pass\\n" else "no")""",
    'a larger stack for a thread': """
import resource, sys, threading
resource.setrlimit(resource.RLIMIT_STACK, (1 << 28, resource.RLIM_INFINITY))
threading.stack_size(1 << 27)
sys.setrecursionlimit(10**6)
def f(n): return n and f(n - 1)
thread = threading.Thread(target=f, args=(10**5,))
thread.start()
thread.join()
print("ok")""",
    'a stack without a limit': """
import resource
resource.setrlimit(resource.RLIMIT_STACK, [0x10000000, resource.RLIM_INFINITY])
resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("ok")""",
    'many threads': """
import threading
threads = [threading.Thread(target=threading.Event().wait, args=(.1,)) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("ok")""",
}
CPP = {
    'a stack of 400 MiB': """
#include <cstdio>
#include <cstring>
int f(int n) {
  volatile char x[1 << 20];
  memset((char*)x, 1, 1 << 20);
  return n ? f(n - 1) + x[5] : 0;
}
int main() { if (f(400)) puts("ok"); }""",
    'four threads': """
#include <cstdio>
#include <thread>
#include <vector>
int main() {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++) threads.emplace_back([] {});
  for (auto& thread : threads) thread.join();
  puts("ok");
}""",
}


@pytest.mark.parametrize('tier', leftovers.TIER_PARAMS)
def test_python_programs_find_what_they_expect(tier):
  rows = judged.judge_table({k: (PROBLEM, x) for k, x in PYTHON.items()}, tier=tier)
  assert {name: row.verdict.value for name, row in rows.items()} == dict.fromkeys(PYTHON, 'AC')


@pytest.mark.parametrize('tier', leftovers.TIER_PARAMS)
def test_the_stack_is_as_large_as_the_memory(tier):
  pairs = [(PROBLEM, source) for source in CPP.values()]
  rows = judged.judge_pairs(*pairs, language='cpp17', tier=tier)
  assert [row.verdict.value for row in rows] == ['AC'] * len(CPP), rows


def test_a_program_that_changes_its_own_file_leaves_nothing_for_the_next_test():
  tests = [('', 'ok')] * 3
  source = """
text = open(__file__).read()
print('ok' if text[-1] == '.' else 'no')
open(__file__, 'w').write(text[:-1] + '!')
# The end."""
  for tier in leftovers.TIERS[:2]:  # In T2 no test can write.
    row = judged.judge_program(judged.build_problem(*tests), source, tier=tier)
    assert row.verdict.value == 'AC', row


def test_numbers_of_numpy_are_their_values():
  problem = judged.build_function_problem('[3, true, 0.5]')
  right = 'import numpy as np\nf = lambda: [np.int64(3), np.bool_(1), np.float32(.5)]'
  assert judged.judge_verdict(problem, right) == 'AC'
  wrong = right.replace('np.int64(3)', 'np.float32(3)')
  assert judged.judge_verdict(problem, wrong) == 'WA'
