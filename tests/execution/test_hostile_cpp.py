"""Hostile C and C++, by tier: what a compiler reads, what a binary may call."""

import pytest

from tests import judged
from tests import leftovers
from valley_jax import records
from valley_jax.execution import languages

# None may compile: what passes a limit does not.
SOURCES = {
    'includes a file of the host': '#include "/etc/shadow"\nint main() {}',
    'includes the canary': '#include "CANARY"\nint main() {}',
    'embeds the canary':
        'asm(".global x\\nx: .incbin \\"CANARY\\"");\nint main() {}',
    'includes its supervisor': '#include "/proc/1/environ"\nint main() {}',
    'includes /dev/zero': '#include "/dev/zero"\nint main() {}',
    'embeds /dev/zero': 'asm(".incbin \\"/dev/zero\\"");\nint main() {}',
    'includes itself': '#include __FILE__\n#include __FILE__\nint main() {}',
    'a binary of 4 GB': 'char x[4L << 30] = {1};\nint main() {}',
    'an object of 1 TB': 'asm(".data\\n.space 1 << 40, 1");\nint main() {}',
    'a flood of instructions':
        'asm(".rept 4000000000\\nnop\\n.endr");\nint main() {}',
    'a macro bomb': '#define A0(x) x x x x x x x x\n' + ''.join(
        f'#define A{i}(x) A{i - 1}(x) A{i - 1}(x) A{i - 1}(x) A{i - 1}(x)\n'
        for i in range(1, 12)) + 'int main() { A11(;) }',
    'a template bomb': 'template <int n, int m> struct F {'
        ' static const long v = F<n - 1, 2 * m>::v + F<n - 1, 2 * m + 1>::v; };'
        '\ntemplate <int m> struct F<0, m> { static const long v = m; };'
        '\nint main() { return F<24, 1>::v; }',
    'a bomb of constants': 'constexpr long f(int n, long m) {'
        ' return n ? f(n - 1, 2 * m) + f(n - 1, 2 * m + 1) : m; }\n'
        'constexpr long x = f(21, 1);\nint main() { return x; }',
    'a flood of errors': 'int main() {' + 'x(y;' * 100_000,
    'an endless name': 'int ' + 'x' * 3_000_000 + ' = y; int main() {}',
    'deep brackets': 'int main() { return ' + '(' * 100_000 + '; }',
    'NUL in the source': 'int main() { \0 return x; }',
    'half a character in the source': 'int main() { return \ud800; }',
}  # fmt: skip

ONLY_CPP = ('a template bomb', 'a bomb of constants')

# Each prints `held` if its wall holds; `call` says what got through.
CALLS_PRELUDE = """
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#define call(x) do { if ((long)(x) != -1) { puts("reached " #x);\\
  fputs(#x, stderr); } } while (0)
"""
CALLS = {
    'sockets': """
for (int f = 1; f < 46; f++) for (int k = 1; k < 6; k++) call(socket(f, k, 0));
call(syscall(SYS_socket, 1L << 32 | AF_INET, SOCK_STREAM, 0));""",
    'name spaces': """
call(unshare(CLONE_NEWUSER)); call(unshare(CLONE_NEWNS));
call(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
call(syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
call(chroot(".")); call(setuid(0)); call(seteuid(0)); call(setgid(0));""",
    'its own program': """
call(open("/proc/self/exe", O_RDWR)); call(open("/proc/self/fd/5", O_RDWR));
call(truncate("/proc/self/exe", 0));""",
}
# These end by a signal of the kernel, without a word.
ENTRANCES = {
    'a call of 32 bits': """
long r;
__asm__ volatile("int $0x80" : "=a"(r) : "a"(359), "b"(1), "c"(1), "d"(0));
puts("held"); return 0;""",
    'a call of x32': 'syscall(0x40000000 | 41, 1, 1, 0); puts("held");',
    'a privileged instruction': '__asm__("cli; hlt"); puts("held");',
    'an illegal instruction': '__builtin_trap();',
    'a null pointer': '*(volatile char*)0 = 1;',
    'an endless recursion': """
volatile char x[1 << 16]; x[0] = 1; main(c, v); return x[0];""",
    'all of the address space': """
while (1) { char* p = malloc(1 << 20); memset(p, 1, 1 << 20);
  __asm__ volatile("" : : "r"(p) : "memory"); }""",
    'a program that only its user may read, and its children': """
if (c < 2) { fchmod(5, 0111); execl("/proc/self/fd/5", "x", "y", (char*)0); }
for (int i = 0; i < 6; i++) if (!fork()) {
  volatile char* p = malloc(48 << 20);
  for (int k = 0; k < 48 << 20; k += 4096) p[k] = 1;
  usleep(3000000); _exit(0); }
while (wait(0) > 0) {}
puts("held");""",
    "children that are no one's": """
while (1) syscall(SYS_clone, CLONE_PARENT | CLONE_VM | CLONE_VFORK, 0, 0, 0, 0);
""",
}


def _build_c_program(body: str) -> str:
  return f'{CALLS_PRELUDE}int main(int c, char** v) {{ {body} }}\n'


@pytest.fixture(scope='module')
def canary(tmp_path_factory):
  path = tmp_path_factory.mktemp('host') / 'canary'
  path.write_text('int secret = 4242;')
  for parent in (path, *list(path.parents)[:-2]):
    parent.chmod(parent.stat().st_mode | 0o055)
  return path


@pytest.fixture(scope='module', params=leftovers.TIER_PARAMS)
def sources(request, canary):
  patch = pytest.MonkeyPatch()
  small = records.Limits(cpu_seconds=0.3, memory_mib=256, output_kib=1 << 14)
  patch.setattr(languages, 'COMPILER_LIMITS', small)
  texts = {n: s.replace('CANARY', str(canary)) for n, s in SOURCES.items()}
  only_cpp = {name: texts.pop(name) for name in ONLY_CPP}
  try:
    rows = leftovers.judge_with_controls(texts, request.param, language='c')
    return rows | leftovers.judge_with_controls(only_cpp, request.param, language='cpp17')
  finally:
    patch.undo()


@pytest.mark.parametrize('name', SOURCES)
def test_a_hostile_source_does_not_compile(sources, name):
  row, control, _ = sources[name]
  assert row.verdict.value == 'CE', row
  assert len(row.message) <= 1000
  assert 'root:' not in row.message
  assert '4242' not in row.message
  assert control.verdict.value == 'AC', control


@pytest.fixture(scope='module', params=leftovers.TIER_PARAMS)
def binaries(request, tmp_path_factory):
  # Compiled once for all tiers.
  kept = tmp_path_factory.getbasetemp() / 'binaries'
  bodies = {n: f'{s}\nputs("held");' for n, s in CALLS.items()} | ENTRANCES
  programs = {name: _build_c_program(body) for name, body in bodies.items()}
  p = judged.build_problem(('', 'held'), limits=leftovers.LIMITS)
  return leftovers.judge_with_controls(
      programs, request.param, p, language='c', cache_dir=str(kept)
  )


@pytest.mark.parametrize('name', CALLS)
def test_a_binary_reaches_nothing(binaries, name):
  row, control, _ = binaries[name]
  assert row.verdict.value == 'AC', row
  assert control.verdict.value == 'AC', control


@pytest.mark.parametrize('name', ENTRANCES)
def test_a_hostile_binary_is_ended(binaries, name):
  row, control, _ = binaries[name]
  assert row.verdict.value not in ('AC', 'IE', 'CE'), row
  assert control.verdict.value == 'AC', control


@pytest.mark.parametrize('tier', leftovers.TIERS)
def test_floods_of_errors_are_cut(tier):
  row = judged.judge_program(
      judged.build_problem(), 'int main() {' + 'x;\n' * 5000, language='c', tier=tier
  )
  assert row.verdict.value == 'CE'
  assert 0 < len(row.message) <= 1000
