"""Tokenizers and chat templates of four families, in small.

Each is a byte-level BPE, trained here on a few words, with its family's way of cutting text, its
control tokens and its special cases. The templates are written to the published formats, without
tools.
"""

from collections.abc import Sequence
import pathlib

import tokenizers
import transformers

from valley_jax.data.tokens import templates
from valley_jax.data.tokens import tokenization

# How Qwen2.5 and Llama 3 cut text; they part at numbers.
_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{number}"
    r'| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)

# Its own system turn where there is none.
QWEN2_5 = (
    "{%- if messages[0]['role'] == 'system' -%}"
    "{{ '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
    '{%- else -%}'
    "{{ '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a"
    " helpful assistant.<|im_end|>\\n' }}"
    '{%- endif -%}'
    '{%- for m in messages -%}'
    "{%- if not (m['role'] == 'system' and loop.first) -%}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    '{%- endif -%}{%- endfor -%}'
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}"
    '{%- endif -%}'
)

# Takes thinking out of former turns, and frames that of the last one anew.
QWEN3 = (
    '{%- set last = namespace(user=-1) -%}'
    '{%- for m in messages -%}{%- if m.role == "user" -%}'
    '{%- set last.user = loop.index0 -%}{%- endif -%}{%- endfor -%}'
    '{%- for m in messages -%}'
    "{{ '<|im_start|>' + m.role + '\\n' }}"
    "{%- if m.role == 'assistant' -%}"
    "{%- set text = m.content -%}{%- set thought = '' -%}"
    '{%- if m.reasoning_content is string -%}'
    '{%- set thought = m.reasoning_content -%}'
    "{%- elif '</think>' in text -%}"
    "{%- set thought = text.split('</think>')[0].rstrip('\\n')"
    ".split('<think>')[-1].lstrip('\\n') -%}"
    "{%- set text = text.split('</think>')[-1].lstrip('\\n') -%}"
    '{%- endif -%}'
    '{%- if loop.index0 > last.user and (loop.last or thought) -%}'
    "{{ '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n'"
    " + text.lstrip('\\n') }}"
    '{%- else -%}{{ text }}{%- endif -%}'
    '{%- else -%}{{ m.content }}{%- endif -%}'
    "{{ '<|im_end|>\\n' }}"
    '{%- endfor -%}'
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}"
    '{%- if enable_thinking is defined and enable_thinking is false -%}'
    "{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}{%- endif -%}"
)

# A system turn with dates, always; every turn is stripped.
LLAMA3_1 = (
    '{{- bos_token -}}'
    '{%- if date_string is not defined -%}'
    "{%- set date_string = '26 Jul 2024' -%}{%- endif -%}"
    "{%- if messages[0]['role'] == 'system' -%}"
    "{%- set system = messages[0]['content'] | trim -%}"
    '{%- set messages = messages[1:] -%}'
    "{%- else -%}{%- set system = '' -%}{%- endif -%}"
    "{{ '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge"
    " Date: December 2023\\nToday Date: ' + date_string + '\\n\\n' + system +"
    " '<|eot_id|>' }}"
    '{%- for m in messages -%}'
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n'"
    " + m['content'] | trim + '<|eot_id|>' }}"
    '{%- endfor -%}'
    '{%- if add_generation_prompt -%}'
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}"
)
# Llama 3.2's shows today's date, unless told one.
LLAMA3_2 = LLAMA3_1.replace("date_string = '26 Jul 2024'", "date_string = strftime_now('%d %b %Y')")

# All up to </think> is left out of answers; its later version opens <think>.
R1_FIRST = (
    "{%- set ns = namespace(system='') -%}"
    "{%- for m in messages -%}{%- if m['role'] == 'system' -%}"
    "{%- set ns.system = m['content'] -%}{%- endif -%}{%- endfor -%}"
    '{{ bos_token }}{{ ns.system }}'
    '{%- for m in messages -%}'
    "{%- if m['role'] == 'user' -%}{{ '<｜User｜>' + m['content'] }}"
    "{%- elif m['role'] == 'assistant' -%}"
    "{{ '<｜Assistant｜>' + m['content'].split('</think>')[-1]"
    " + '<｜end▁of▁sentence｜>' }}"
    '{%- endif -%}{%- endfor -%}'
    "{%- if add_generation_prompt -%}{{ '<｜Assistant｜>' }}{%- endif -%}"
)
R1 = R1_FIRST.replace("'<｜Assistant｜>' }}", "'<｜Assistant｜><think>\\n' }}")

_IM = {
    'eos': '<|im_end|>',
    'pad': '<|endoftext|>',
    'special': ('<|endoftext|>', '<|im_start|>', '<|im_end|>'),
    'number': '',
    'normalizer': tokenizers.normalizers.NFC(),
}
_LLAMA = {
    'eos': '<|eot_id|>',
    'bos': '<|begin_of_text|>',
    'special': (
        '<|begin_of_text|>',
        '<|end_of_text|>',
        '<|start_header_id|>',
        '<|end_header_id|>',
        '<|eot_id|>',
    ),
    'number': '{1,3}',
}
_R1 = {
    'eos': '<｜end▁of▁sentence｜>',
    'pad': '<｜end▁of▁sentence｜>',
    'bos': '<｜begin▁of▁sentence｜>',
    'special': ('<｜begin▁of▁sentence｜>', '<｜end▁of▁sentence｜>'),
    'plain': ('<｜User｜>', '<｜Assistant｜>', '<think>', '</think>'),
    'number': '',
}
FAMILIES = {
    'qwen2_5': {**_IM, 'template': QWEN2_5},
    'qwen2_5_base': {**_IM, 'template': QWEN2_5, 'eos': '<|endoftext|>'},
    'qwen3': {**_IM, 'template': QWEN3, 'plain': ('<think>', '</think>')},
    'llama3_1': {**_LLAMA, 'template': LLAMA3_1},
    'llama3_1_base': {**_LLAMA, 'template': LLAMA3_1, 'eos': '<|end_of_text|>'},
    'llama3_2': {**_LLAMA, 'template': LLAMA3_2},
    'r1_first': {**_R1, 'template': R1_FIRST},
    'r1': {**_R1, 'template': R1},
}

_TEXTS = [
    'Add 1 and 2. We add, yes yes; it is 3, so print 3.\n\n',
    '<think>\nWe add 10 and 20.\n</think>\n\n```python\nprint(1 , 2)\n```\n',
    "  def f(x):\n    return x + 1\n\n\nassistant\nuser\nsystem\n\n  Don't.",
]


def write(directory: pathlib.Path, name: str) -> pathlib.Path:
  """Writes a family's tokenizer as an HF directory, and returns it."""
  f = FAMILIES[name]
  model = tokenizers.Tokenizer(tokenizers.models.BPE())
  if 'normalizer' in f:
    model.normalizer = f['normalizer']
  cut = tokenizers.Regex(_CUT.format(number=f['number']))
  bytes_ = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  model.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
      [tokenizers.pre_tokenizers.Split(cut, 'isolated'), bytes_]
  )
  model.decoder = tokenizers.decoders.ByteLevel()
  model.train_from_iterator(
      _TEXTS,
      tokenizers.trainers.BpeTrainer(
          vocab_size=400,
          initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
          show_progress=False,
      ),
  )
  model.add_special_tokens(list(f['special']))
  plain = [
      tokenizers.AddedToken(text, normalized=False, special=False) for text in f.get('plain', ())
  ]
  model.add_tokens(plain)
  if bos := f.get('bos'):  # Every text gets one, unless told otherwise.
    model.post_processor = tokenizers.processors.Sequence(
        [
            tokenizers.processors.ByteLevel(trim_offsets=True),
            tokenizers.processors.TemplateProcessing(
                single=f'{bos} $A', special_tokens=[(bos, model.token_to_id(bos))]
            ),
        ]
    )
  tokenizer = transformers.PreTrainedTokenizerFast(
      tokenizer_object=model,
      eos_token=f['eos'],
      pad_token=f.get('pad'),
      bos_token=bos,
      clean_up_tokenization_spaces=False,
  )
  tokenizer.chat_template = f['template']
  tokenizer.save_pretrained(directory)
  return directory


def encode_traces(
    tokenizer: tokenization.Tokenizer, traces: Sequence[tuple[str, str]], system: str | None = None
) -> list[tokenization.Example]:
  """Renders and tokenises (question, response) pairs."""
  turns = [templates.render_turn(tokenizer, *trace, system) for trace in traces]
  return tokenization.encode_turns(tokenizer, turns)
