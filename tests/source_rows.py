"""Rows of every source of traces in its own columns, and how to write them."""

import gzip
import json
import pathlib

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

_PYTHON = '```python\na, b = map(int, input().split())\nprint(a + b)\n```'
_CPP = '```cpp\n#include <iostream>\nint main() { std::cout << 1; }\n```'
THOUGHT = 'One line, two numbers. I add them.'
RESPONSE = f'<think>\n{THOUGHT}\n</think>\n\n{_PYTHON}'

_OCR1 = {
    'id': '00000000000000000000000000000001',
    'input': 'Print the sum of two integers.',
    'output': RESPONSE,
    'source': 'codeforces',
    'license': 'cc-by-4.0',
    'dataset': 'taco',
    'split': 'train',
    'difficulty': 'EASY',
    'solution': 'a, b = map(int, input().split())\nprint(a + b)',
}
_OCR2 = {
    'id': 'e3e70682-c209-4cac-a29f-6fbed82c07cd',
    'question_id': '00000000000000000000000000000001',
    'question': '-',
    'r1_generation': f'{RESPONSE}\n',
    'qwq_critique': 'The program is right.',
    'solution': _PYTHON,
    'judgement': 'right',
    'pass_rate': '0.75',
    'source': 'codeforces',
    'license': 'mit',
    'dataset': 'taco',
    'split': 'train',
    'difficulty': 'MEDIUM',
    'index': '0',
}
_MESSAGES = [
    {'content': 'Print the sum of two integers.', 'role': 'user'},
    {'content': RESPONSE, 'role': 'assistant'},
]
_S1K = {
    'solution': '2',
    'question': 'What is 1 + 1?',
    'cot_type': 'math',
    'source_type': 'qq8933/AIME_1983_2024',
    'metadata': "{'ID': 1}",
}

# By format, and where a set comes in two forms, `format form`.
ROWS = {
    'ocr1': _OCR1,
    'ocr1 split_1': _OCR1 | {'input': '-', 'index': '0'},
    'ocr2': _OCR2,
    'ocr2 cpp': _OCR2
    | {
        'id': 'f728b4fa-4248-4e3a-8a5d-2f346baa9455',
        'r1_generation': f'<think>\nHm.\n</think>\n\n{_CPP}\n',
        'solution': _CPP,
        'judgement': 'wrong',
        'pass_rate': '-1',
    },
    'openr1': {'messages': _MESSAGES, 'num_tokens': 40, 'source': 'open-r1/codeforces-cots'},
    'openr1 math': {
        'problem': 'What is 1 + 1?',
        'solution': 'It is 2.',
        'answer': '2',
        'problem_type': 'Algebra',
        'question_type': 'math-word-problem',
        'source': 'olympiads',
        'uuid': '586fd646-76d6-5070-8c81-9993ab9d8559',
        'is_reasoning_complete': [True],
        'generations': ['<think>\nTwo.\n</think>\n\n2'],
        'correctness_math_verify': [True],
        'correctness_llama': None,
        'finish_reasons': ['stop'],
        'correctness_count': 1,
        'messages': [
            {'content': 'What is 1 + 1?', 'role': 'user'},
            {'content': '<think>\nTwo.\n</think>\n\n2', 'role': 'assistant'},
        ],
    },
    'codeforces_cots': {
        'id': '1/A',
        'aliases': None,
        'contest_id': '1',
        'contest_name': 'Round 1',
        'contest_type': 'ICPC',
        'contest_start': 1705804200,
        'contest_start_year': 2024,
        'index': 'A',
        'time_limit': 1.0,
        'memory_limit': 256.0,
        'title': 'Sum',
        'description': 'Add two integers.',
        'input_format': 'Two integers.',
        'output_format': 'Their sum.',
        'examples': [{'input': '1 2', 'output': '3'}],
        'note': None,
        'editorial': 'Add them.',
        'prompt': 'You will be given a problem. Add two integers.',
        'generation': RESPONSE,
        'finish_reason': 'stop',
        'api_metadata': {
            'completion_tokens': 20,
            'prompt_tokens': 10,
            'prompt_tokens_details': None,
            'total_tokens': 30,
        },
        'interaction_format': None,
        'messages': [
            {'content': 'You will be given a problem. Add two integers.', 'role': 'user'},
            {'content': RESPONSE, 'role': 'assistant'},
        ],
    },
    'chat': {
        'messages': [
            {'role': 'system', 'content': 'You are helpful.'},
            {'role': 'user', 'content': 'Print the sum of two integers.'},
            {'role': 'assistant', 'content': _PYTHON, 'reasoning_content': f'\n{THOUGHT}\n'},
        ],
        'id': 7,
        'model': 'QwQ-32B',
    },
    's1k': _S1K | {'cot': None, 'thinking_trajectories': ['One and one are two.'], 'attempt': '2'},
    's1k 1.1': _S1K
    | {
        'gemini_thinking_trajectory': 'One and one are two.',
        'gemini_attempt': '2',
        'deepseek_thinking_trajectory': 'Hm, 1 + 1 is 3.',
        'deepseek_attempt': '3',
        'gemini_grade': 'Yes',
        'gemini_grade_reason': 'It is 2.',
        'deepseek_grade': 'No',
        'deepseek_grade_reason': 'It is not 2.',
    },
    'table': {'prompt': 'Print the sum.', 'response': RESPONSE},
    'math': {'question': 'What is 1 + 1?', 'trace': 'One and one are two.', 'answer': '2'},
    'jsonl': {
        'trace_id': 'a',
        'problem_id': 'p',
        'question': 'Why?',
        'response': 'So.',
        'language': 'cpp17',
    },
}


def encode_row(row: dict | bytes) -> bytes:
  """Returns a row as JSON, if it is not bytes already."""
  return row if isinstance(row, bytes) else json.dumps(row).encode()


def write_rows(path: pathlib.Path, *rows: dict | bytes) -> pathlib.Path:
  """Writes rows in the form that the suffix says, a row group each row."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == '.parquet':
    table = pa.Table.from_pylist(list(rows))
    pq.write_table(table, path, row_group_size=1)
    return path
  data = b''.join(encode_row(row) + b'\n' for row in rows)
  if path.suffix == '.gz':
    data = gzip.compress(data, mtime=0)
  elif path.suffix == '.zst':
    data = zstandard.compress(data)
  path.write_bytes(data)
  return path


def copy_row(name: str, number: int) -> list[dict]:
  """Returns copies of the format's row that differ in their response."""
  texts = [f'{RESPONSE} {i:05d}' for i in range(number)]
  row = ROWS[name]
  if name.startswith('ocr2'):
    return [row | {'id': f'{i:05d}', 'r1_generation': text} for i, text in enumerate(texts)]
  return [{'prompt': row['prompt'], 'response': text} for text in texts]


def list_changed_fields(trace) -> dict:
  """Returns a trace's fields that are not as by default."""
  fields = {f.name: f.default for f in msgspec.structs.fields(type(trace))}
  values = msgspec.structs.asdict(trace)
  return {k: v for k, v in values.items() if v != fields[k]}
