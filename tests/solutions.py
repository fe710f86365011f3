"""Solutions that are right, wrong, slow or broken, to problems of other sets.

KATTIS: by package; Python unless the name says C++. Right ones are accepted,
'slow' ones take exponential time or longer, 'crash' fails while it runs.
LEETCODE: by task, a right solution and a wrong one.
"""

import textwrap

HEAD = ''.join(f'#include <{name}>\n' for name in ('algorithm', 'iostream', 'vector'))
HEAD += 'using namespace std;\n'

_KATTIS = {
    'hello': {
        'AC': "print('Hello World!')",
        'AC C++': 'int main() { cout << "Hello World!" << endl; }',
        'WA': "print('Hello, World!')",
        'TLE': """
            import random
            while True:
              words = [random.sample('Hello', 5), random.sample('World!', 6)]
              if words == [list('Hello'), list('World!!')]: break
            print('Hello World!')""",
        'RE': "print('Hello', input())",
    },
    'different': {
        'AC': """
            import sys
            for line in sys.stdin:
              a, b = map(int, line.split())
              print(abs(a - b))""",
        'AC C++': """
            int main() {
              long long a, b;
              while (cin >> a >> b) cout << llabs(a - b) << '\\n';
            }""",
        'WA': """
            import sys
            for line in sys.stdin:
              a, b = map(int, line.split())
              print(b - a)""",
        'TLE': """
            import sys
            for line in sys.stdin:
              a, b = sorted(map(int, line.split()))
              print(sum(1 for _ in range(a, b)))""",
        'RE': """
            while True:
              a, b = map(int, input().split())
              print(abs(a - b))""",
    },
    'klippaprotein': {
        'AC': """
            protein, k = input(), int(input())
            n = len(protein)
            best = n
            for letter in set(protein):
              kept = [i for i, x in enumerate(protein) if x == letter]
              cuts = {}  # By the last letter that is kept, all cuts before it.
              for j in kept:
                cuts[j] = -(-j // k)
                for i in cuts:
                  if i < j: cuts[j] = min(cuts[j], cuts[i] - (i - j + 1) // k)
              rests = (cuts[i] - (i - n + 1) // k for i in cuts)
              best = min(best, *rests)
            print(best)""",
        'AC C++': """
            int main() {
              string p; int k;
              cin >> p >> k;
              int n = p.size(), best = n;
              for (char c = 'a'; c <= 'z'; c++) {
                vector<int> cuts(n, n);
                for (int j = 0; j < n; j++) if (p[j] == c) {
                  cuts[j] = (j + k - 1) / k;
                  for (int i = 0; i < j; i++) if (p[i] == c)
                    cuts[j] = min(cuts[j], cuts[i] + (j - i - 1 + k - 1) / k);
                  best = min(best, cuts[j] + (n - j - 1 + k - 1) / k);
                }
              }
              cout << best << endl;
            }""",
        'WA': """
            protein, k = input(), int(input())
            rows = (protein.split(x) for x in set(protein))
            print(min(sum(-(-len(part) // k) for part in row)
                      for row in rows) - 1)""",
        'TLE': """
            from itertools import combinations
            protein, k = input(), int(input())
            def is_pure(cuts, text):
              if len(set(text)) == 1: return True
              return cuts > 0 and any(
                  is_pure(cuts - 1, text[:i] + text[j:])
                  for i in range(len(text))
                  for j in range(i + 1, min(i + k, len(text)) + 1))
            print(next(n for n in range(99) if is_pure(n, protein)))""",
        'RE': """
            protein, k = input(), int(input())
            print(-(-(protein.index('z') + 1) // k))""",
    },
    'meddelande': {
        'AC': """
            n, m = map(int, input().split())
            print(''.join(input() for _ in range(n)).replace('.', ''))""",
        'AC C++': """
            int main() {
              int n, m;
              cin >> n >> m;
              for (char c; cin >> c;) if (c != '.') cout << c;
              cout << endl;
            }""",
        'WA': """
            n, m = map(int, input().split())
            rows = [input().strip('.') for _ in range(n)]
            print(''.join(row[:1] for row in rows))""",
        'TLE': """
            from itertools import permutations
            n, m = map(int, input().split())
            rows = [input() for _ in range(n)]
            cells = [(i, j) for i in range(n) for j in range(m)
                     if rows[i][j] != '.'][::-1]
            for path in permutations(cells * 2, len(cells)):
              if all(a < c and b <= d or a <= c and b < d
                     for (a, b), (c, d) in zip(path, path[1:])):
                print(''.join(rows[i][j] for i, j in path))
                break""",
        'RE': """
            n, m = map(int, input().split())
            rows, i, j, word = [input() for _ in range(n)], 0, 0, ''
            while (i, j) != (n, m):
              word += rows[i][j].strip('.')
              i, j = (i, j + 1) if rows[i][j + 1] != '.' else (i + 1, j)
            print(word)""",
    },
    'pianot': {
        'AC': """
            piece = input()
            keys = sorted(set(piece))
            n = len(keys)
            moves = [[0] * n for _ in keys]
            for a, b in zip(map(keys.index, piece), map(keys.index, piece[1:])):
              if a != b: moves[a][b] += 1; moves[b][a] += 1
            # Which keys stand left: moves over the border, seconds at least.
            border, seconds = [0] * 2**n, [0] * 2**n
            for left in range(1, 2**n):
              last = left.bit_length() - 1
              rest = left - 2**last
              border[left] = border[rest] + sum(
                  -x if rest >> i & 1 else x for i, x in enumerate(moves[last]))
              seconds[left] = border[left] + min(
                  seconds[left - 2**i] for i in range(n) if left >> i & 1)
            print(seconds[-1])""",
        'AC C++': """
            int main() {
              string s;
              cin >> s;
              string keys = s;
              sort(keys.begin(), keys.end());
              keys.erase(unique(keys.begin(), keys.end()), keys.end());
              int n = keys.size();
              vector<int> seconds(1 << n, 1 << 29);
              seconds[0] = 0;
              for (int left = 1; left < 1 << n; left++) {
                int border = 0;
                for (size_t i = 1; i < s.size(); i++)
                  border += (left >> keys.find(s[i - 1]) & 1)
                      != (left >> keys.find(s[i]) & 1);
                for (int i = 0; i < n; i++) if (left >> i & 1)
                  seconds[left] = min(seconds[left],
                                      seconds[left - (1 << i)] + border);
              }
              cout << seconds.back() << endl;
            }""",
        'WA': """
            piece = input()
            keys = sorted(set(piece), key=piece.count)
            print(sum(abs(keys.index(a) - keys.index(b))
                      for a, b in zip(piece, piece[1:])))""",
        'TLE': """
            from itertools import permutations
            piece = input()
            print(min(sum(abs(keys.index(a) - keys.index(b))
                          for a, b in zip(piece, piece[1:]))
                      for keys in permutations(set(piece))))""",
        'RE': """
            piece = input()
            def seconds(keys, left):
              return min(seconds(keys + x, left) for x in left)
            print(seconds('', set(piece)))""",
    },
}  # fmt: skip
KATTIS = {
    (name, kind): (HEAD if kind.endswith('C++') else '') + textwrap.dedent(source).strip()
    for name, kinds in _KATTIS.items()
    for kind, source in kinds.items()
}


def _build_method(signature: str, body: str) -> str:
  body = textwrap.indent(textwrap.dedent(body).strip(), '    ')
  return f'class Solution:\n  def {signature}:\n{body}\n'


LEETCODE = {
    'weekly-contest-381-minimum-number-of-pushes-to-type-word-ii': (
        'minimumPushes(self, word: str) -> int', """
        counts = sorted(Counter(word).values(), reverse=True)
        return sum(n * (i // 8 + 1) for i, n in enumerate(counts))""",
        'return sum(i // 8 + 1 for i in range(len(word)))'),
    'weekly-contest-380-count-elements-with-maximum-frequency': (
        'maxFrequencyElements(self, nums: List[int]) -> int', """
        counts = Counter(nums).values()
        return sum(n for n in counts if n == max(counts))""",
        'return max(Counter(nums).values())'),
    'weekly-contest-377-minimum-number-game': (
        'numberGame(self, nums: List[int]) -> List[int]', """
        nums.sort()
        for i in range(0, len(nums), 2):
          nums[i], nums[i + 1] = nums[i + 1], nums[i]
        return nums""", 'return sorted(nums)'),
    'biweekly-contest-120-find-polygon-with-the-largest-perimeter': (
        'largestPerimeter(self, nums: List[int]) -> int', """
        nums.sort()
        sums = list(accumulate(nums))
        return next((sums[i] for i in range(len(nums) - 1, 1, -1)
                     if sums[i - 1] > nums[i]), -1)""", 'return sum(nums)'),
    'biweekly-contest-118-find-words-containing-character': (
        'findWordsContaining(self, words: List[str], x: str) -> List[int]',
        'return [i for i, word in enumerate(words) if x in word]',
        'return [word for word in words if x in word]'),
}  # fmt: skip
LEETCODE = {
    task: (_build_method(signature, right), _build_method(signature, wrong))
    for task, (signature, right, wrong) in LEETCODE.items()
}
