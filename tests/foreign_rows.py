"""One good row of every foreign set of rows, and how to write and read them."""

import base64
import json
import pathlib
import pickle
import zlib

from valley_jax import records
from valley_jax.data.problem_formats import problems


def pack_tests(text: str, protocol: int = 4) -> str:
  """The form of LiveCodeBench's private tests."""
  data = zlib.compress(pickle.dumps(text, protocol))
  return base64.b64encode(data).decode()


def encode_lcb_tests(*tests: tuple[str, str], testtype: str = 'stdin') -> str:
  return json.dumps([{'input': i, 'output': o, 'testtype': testtype} for i, o in tests])


ROWS = {
    'humaneval': {
        'task_id': 'HumanEval/0',
        'prompt': 'def f(x):\n  """One more."""\n',
        'entry_point': 'f',
        'canonical_solution': '  return x + 1\n',
        'test': 'def check(candidate):\n  assert candidate(1) == 2\n',
    },
    'mbpp': {
        'task_id': 7,
        'text': 'Write a function to add one.',
        'code': 'def f(x):\n  return x + 1',
        'test_setup_code': 'a = 1',
        'test_list': ['assert f(a) == 2', 'assert f(2) == 3'],
        'challenge_test_list': ['assert f(3) == 4'],
    },
    'leetcode': {
        'task_id': 'weekly-contest-381-add-one',
        'title': 'add-one',
        'meta': {'difficulty': 'Easy', 'likes': 1},
        'prompt': (
            '"""\nAdd one.\n"""\nclass Solution:\n' '    def addOne(self, x: int) -> int:\n        '
        ),
        'test': 's = Solution()\nassert s.addOne(x=1) == 2\n',
        'start_time': 1705804200,
    },
    'livecodebench': {
        'question_title': 'Add',
        'question_content': 'Add one.',
        'platform': 'atcoder',
        'question_id': 'abc300_a',
        'contest_id': 'abc300',
        'contest_date': '2023-04-29T00:00:00',
        'starter_code': '',
        'difficulty': 'easy',
        'public_test_cases': encode_lcb_tests(('1\n', '2\n')),
        'private_test_cases': pack_tests(encode_lcb_tests(('2\n', '3\n'))),
        'metadata': '{}',
    },
    'apps': {
        'problem_id': 5,
        'question': 'Add one.',
        'input_output': json.dumps({'inputs': ['1\n'], 'outputs': ['2\n']}),
        'solutions': '["print(int(input()) + 1)"]',
        'difficulty': 'interview',
        'url': 'https://codeforces.com/problemset/problem/1/A',
        'starter_code': '',
    },
    'taco': {
        'question': 'Add one.',
        'input_output': json.dumps({'inputs': ['1\n'], 'outputs': ['2\n']}),
        'difficulty': 'EASY',
        'source': 'codechef',
        'url': None,
        'starter_code': '',
        'date': '2021-03-20',
        'time_limit': '2.0 seconds',
        'memory_limit': '256.0 megabytes',
    },
    'codecontests': {
        'name': '1_A. Add',
        'description': 'Add one.',
        'public_tests': {'input': ['1\n'], 'output': ['2\n']},
        'private_tests': {'input': ['2\n'], 'output': ['3\n']},
        'generated_tests': {'input': ['3\n'], 'output': ['4\n']},
        'solutions': {'language': [3], 'solution': ['print(input())']},
        'source': 2,
        'difficulty': 7,
        'cf_rating': 800,
        'time_limit': {'seconds': 1, 'nanos': 500_000_000},
        'memory_limit_bytes': 256_000_000,
        'input_file': '',
        'output_file': '',
    },
    'codeforces': {
        'id': '1/A',
        'title': 'Add',
        'description': 'Add one.',
        'input_format': 'A number.',
        'output_format': 'One more.',
        'interaction_format': None,
        'note': None,
        'examples': [{'input': '1', 'output': '2'}],
        'official_tests': [{'input': '1\n', 'output': '2\n'}, {'input': '2\n', 'output': '3\n'}],
        'official_tests_complete': True,
        'generated_checker': None,
        'time_limit': 2.0,
        'memory_limit': 256.0,
        'rating': 800,
        'input_mode': 'stdio',
        'contest_start': 1705804200,
    },
}


def write_rows(path: pathlib.Path, *rows: dict) -> pathlib.Path:
  """Writes rows as JSONL."""
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def read_changed_row(tmp_path: pathlib.Path, name: str, /, **changes) -> list[records.Problem]:
  """The problems of the format's row with some columns changed."""
  path = write_rows(tmp_path / 'rows.jsonl', {**ROWS[name], **changes})
  return problems.read_problems(f'{name}:{path}')
