// The browser of samples. Completions are untrusted: they become text nodes
// and nothing else, whatever they hold.
(() => {
  'use strict';
  const data = JSON.parse(document.getElementById('data').textContent);
  const byId = (id) => document.getElementById(id);
  const samples = data.runs.flatMap((run) =>
    run.samples.map((s) => ({...s, traces: run.traces, seed: run.seed})));

  const element = (tag, className, ...children) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    made.append(...children);
    return made;
  };
  const unique = (values) => [...new Set(values)];

  // Filters -----------------------------------------------------------------
  const filters = [
    {key: 'traces', label: 'Traces', show: String},
    {key: 'seed', label: 'Seed', show: String},
    {key: 'difficulty', label: 'Difficulty', show: String},
    {key: 'verdict', label: 'Verdict', show: String},
  ].filter((f) => unique(samples.map((s) => s[f.key])).length > 1);
  const count = element('output', '');
  for (const filter of filters) {
    filter.select = element('select', '', new Option('all', ''));
    for (const value of unique(samples.map((s) => s[filter.key]))) {
      filter.select.append(new Option(filter.show(value), String(value)));
    }
    filter.select.addEventListener('change', () => list());
    byId('filters').append(element('label', '', filter.label, filter.select));
  }
  byId('filters').append(count);
  byId('filters').addEventListener('submit', (e) => e.preventDefault());

  // The list ----------------------------------------------------------------
  let shown = [];
  let selected = 0;
  const list = () => {
    shown = samples.filter((s) => filters.every((f) =>
      !f.select.value || String(s[f.key]) === f.select.value));
    count.textContent = `${shown.length} of ${samples.length}`;
    byId('list').replaceChildren(...shown.map((s, i) => {
      const button = element('button', '',
        element('b', '', s.problem_id),
        element('span', `verdict ${s.verdict}`, s.verdict),
        element('small', '',
          `${s.traces} traces, seed ${s.seed}, ${s.difficulty}`));
      button.type = 'button';
      button.tabIndex = -1;
      button.setAttribute('role', 'option');
      button.addEventListener('click', () => select(i));
      return button;
    }));
    select(0);
  };
  const select = (i) => {
    selected = i;
    const buttons = [...byId('list').children];
    buttons.forEach((b, j) => b.setAttribute('aria-selected', String(i === j)));
    const pane = byId('list');
    const button = buttons[i];
    if (button) {  // Scroll the list only, never the page.
      const top = button.offsetTop - pane.offsetTop;
      if (top < pane.scrollTop) pane.scrollTop = top;
      const bottom = top + button.offsetHeight;
      if (bottom > pane.scrollTop + pane.clientHeight) {
        pane.scrollTop = bottom - pane.clientHeight;
      }
    }
    byId('sample').replaceChildren(...(shown[i] ? render(shown[i])
      : [element('p', 'empty', 'No sample has all of these.')]));
    byId('sample').scrollTop = 0;
  };
  byId('list').addEventListener('keydown', (e) => {
    const step = {ArrowDown: 1, ArrowUp: -1}[e.key];
    if (!step) return;
    e.preventDefault();
    select(Math.max(0, Math.min(shown.length - 1, selected + step)));
  });

  // One sample --------------------------------------------------------------
  const PYTHON = new RegExp([
    /(?<comment>#[^\n]*)/,
    /(?<string>"""[^]*?"""|'''[^]*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')/,
    /(?<keyword>\b(?:and|as|assert|break|class|continue|def|del|elif|else|except|False|finally|for|from|global|if|import|in|is|lambda|None|nonlocal|not|or|pass|raise|return|True|try|while|with|yield)\b)/,
  ].map((r) => r.source).join('|'), 'g');
  const highlight = (code) => {
    const program = element('pre', 'program');
    let end = 0;
    for (const match of code.matchAll(PYTHON)) {
      const kind = Object.keys(match.groups).find((k) => match.groups[k]);
      program.append(code.slice(end, match.index),
        element('span', kind, match[0]));
      end = match.index + match[0].length;
    }
    program.append(code.slice(end));
    return program;
  };
  const answer = (text) => text.split(/^(```[^\n]*\n[^]*?(?:\n```[ \t]*$|$(?![^])))/m)
    .filter((part) => part.trim())
    .map((part) => part.startsWith('```')
      ? highlight(part.replace(/^```[^\n]*\n/, '').replace(/\n```[ \t]*$/, ''))
      : element('pre', '', part.trim()));
  const render = (s) => {
    const verdict = element('span', `verdict ${s.verdict}`, s.verdict);
    const ended = {
      eos: 'ended by itself', stop: 'ended at a stop string',
      length: 'cut off at the token budget',
    }[s.finish_reason];
    const parts = [
      element('h3', '', verdict, ` ${s.problem_id}`),
      element('p', 'facts', `${s.difficulty} · ${s.traces} traces, `
        + `seed ${s.seed}, sample ${s.sample_index} · ${s.tests_passed} of `
        + `${s.num_tests} tests passed · ${s.num_tokens.toLocaleString('en')} `
        + `tokens, ${ended}`),
    ];
    const section = (title, ...children) =>
      parts.push(element('h4', '', title), ...children);
    if (s.message) section('Why', element('pre', '', s.message));
    if (s.failed) {
      const column = (name, text) => element('div', '',
        element('span', '', name), element('pre', '', text));
      section(`First failed test: number ${s.failed.number}`,
        ...(s.failed.input || s.failed.expected ? [element('div', 'failed',
          column('input', s.failed.input),
          column('expected', s.failed.expected))] : []));
    }
    if (data.statements[s.problem_id]) {
      section('Problem',
        element('pre', 'statement', data.statements[s.problem_id]));
    }
    section('Completion',
      ...(s.thought ? [element('pre', 'thought', s.thought)] : []),
      ...answer(s.answer));
    if (!s.thought && !s.answer) parts.push(element('p', 'facts', 'Empty.'));
    return parts;
  };

  byId('filters').hidden = false;
  byId('browser').hidden = false;
  list();
})();
