/* ---- the page: asks, keeps what it is told, draws ---- */

const EVERY_MS = 500, HIDDEN_MS = 5000, PATIENCE_MS = 4000, KEPT = 1024, QUIET_S = 15;
const state = {};
function forget() {
  Object.assign(state, { instance: null, snapshot: 0, status: {}, workers: [], evaluations: [], samples: [], staleness: [],
    notices: [], cells: new Map(), until: [], cell_s: 0.5, final: false, age_s: 0 });
}
forget();
let lost = null; /* since when nobody answers */
const measured = { updates: 0, draw_ms: [] }; /* for tests */
window.skald = { state, measured };

function keep(list, more) {
  list.push(...more);
  while (list.length > KEPT) { /* every other one goes: the whole run stays */
    const half = list.filter((_, k) => k % 2 === 0 || k === list.length - 1);
    list.splice(0, list.length, ...half);
  }
}

function take(news) {
  if (state.instance !== null && state.instance !== news.instance) { forget(); return false; } /* another run: from its beginning */
  state.instance = news.instance;
  state.snapshot = news.snapshot;
  state.status = news.status;
  state.final = news.final;
  state.age_s = news.age_s;
  state.workers = news.workers.map((row, number) => {
    const worker = { number };
    news.columns.forEach((name, k) => { worker[name] = row[k]; });
    return worker;
  });
  keep(state.evaluations, news.evaluations);
  keep(state.samples, news.samples);
  keep(state.notices, news.notices);
  state.staleness = news.staleness;
  state.cell_s = news.cell_s;
  state.until = news.until;
  let newest = 0;
  for (const [cell, text] of news.cells) { state.cells.set(cell, text); newest = Math.max(newest, cell); }
  for (const cell of state.cells.keys()) if (cell < newest - CELLS) state.cells.delete(cell);
  return true;
}

async function ask() {
  let wait = document.hidden ? HIDDEN_MS : EVERY_MS;
  try {
    const reply = await fetch('live.json?after=' + state.snapshot, { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!reply.ok) throw new Error(reply.statusText);
    const news = await reply.json();
    lost = null;
    if (!take(news)) wait = 0;
  } catch (error) {
    if (!lost) lost = new Date();
  }
  redraw();
  setTimeout(ask, wait);
}

/* ---- head ---- */

const words = { gathering: '◌ gathering workers', starting: '◌ starting', training: '● training', stopping: '◑ stopping', ended: '■ ended', failed: '▲ failed' };

function drawHead() {
  const s = state.status, pill = $('state'), alarm = $('alarm'), at = lost && lost.toLocaleTimeString();
  let text = words[s.state] || s.state || 'connecting', kind = s.state === 'training' ? 'training' : s.state === 'ended' ? 'done' : s.state === 'failed' ? 'bad' : '';
  let alarming = '', calm = false;
  if (s.state === 'ended') { alarming = 'The run has ended: ' + (s.stop || '') + '.'; calm = s.reached !== false; }
  if (s.state === 'failed') alarming = 'The run has failed: ' + (s.error || 'no reason given');
  if (lost && state.final) alarming += ' The coordinator has left since (' + at + ').';
  if (lost && !state.final) {
    text = '▲ coordinator gone';
    kind = 'bad';
    alarming = (state.snapshot ? 'The coordinator is gone: it has not answered since ' + at + '. This page shows what it said last, and goes on asking.'
      : 'The coordinator does not answer.');
  } else if (!lost && s.state === 'training' && state.age_s > QUIET_S) {
    alarming = 'The coordinator answers, but has had no news of the run for ' + seconds(state.age_s) + '.';
  }
  say(pill, text);
  pill.className = kind;
  alarm.hidden = !alarming;
  alarm.className = calm ? 'done' : '';
  say(alarm, alarming);
  document.body.classList.toggle('gone', !!lost && !state.final);
  document.title = text + ' – Skald';
  const p = s.problem || {};
  say($('what'), [[s.algo, s.mode].filter(Boolean).join(', '), p.loss, known(p.rows) ? count(p.rows) + ' rows × ' + count(p.features) + ' columns' : '', known(s.seconds) ? seconds(s.seconds) : '']
    .filter(Boolean).join(' · '));
  say($('clock'), lost ? 'no answer since ' + at : 'snapshot ' + state.snapshot + ', ' + seconds(state.age_s) + ' old');
}

function tile(name, value, text, extra) {
  const list = $('tiles');
  let box = list.querySelector('[data-name="' + name + '"]');
  if (!box) {
    box = document.createElement('div');
    box.dataset.name = name;
    const term = document.createElement('dt'), data = document.createElement('dd');
    term.textContent = name;
    data.append(document.createElement('span'), document.createElement('small'));
    box.append(term, data);
    list.append(box);
  }
  box.dataset.value = known(value) ? value : '';
  say(box.lastChild.firstChild, text);
  say(box.lastChild.lastChild, extra || '');
}

function drawTiles() {
  const s = state.status, dead = state.workers.filter(w => w.state === 'dead').length;
  const estimate = known(s.estimated_objective) ? '~' + tiny(s.estimated_objective, 4) : '';
  tile('pass', s.passes, known(s.passes) ? s.passes.toFixed(1) : '–');
  tile('objective', s.objective, tiny(s.objective, 6), known(s.objective) ? '' : estimate);
  tile('certified gap', s.gap, tiny(s.gap, 1));
  tile('rows/s', s.rows_per_s, count(s.rows_per_s));
  tile('updates/s', s.updates_per_s, count(s.updates_per_s));
  tile('staleness', s.staleness_mean, known(s.staleness_mean) ? s.staleness_mean.toFixed(1) : '–', known(s.staleness_max) ? 'most ' + s.staleness_max : '');
  tile('workers', state.workers.length, String(state.workers.length), dead ? dead + ' dead' : known(s.available) ? s.available + ' free' : '');
  const lateness = [['scaled', s.scaled], ['folded', s.folded], ['rejected', s.rejected]].filter(x => x[1]).map(x => count(x[1]) + ' ' + x[0]);
  tile('results', s.updates, count(s.updates), lateness.join(', '));
}

function drawNotices() {
  const list = $('notices'), shown = state.notices.slice(-32).reverse();
  $('news').hidden = !shown.length;
  while (list.children.length > shown.length) list.lastChild.remove();
  while (list.children.length < shown.length) {
    const item = document.createElement('li');
    item.append(document.createElement('time'), document.createElement('span'));
    list.append(item);
  }
  shown.forEach(([at, text], k) => { say(list.children[k].firstChild, at > 0 ? seconds(at) : ''); say(list.children[k].lastChild, text); });
}

/* ---- all of it, at most once a frame ---- */

let wanted = false;
function draw() {
  const began = performance.now();
  const axis = Number(document.querySelector('input[name=axis]:checked').value), time = axis === 0;
  const least = time ? state.status.seconds : state.status.passes;
  const of = (list, k) => list.map(p => [p[axis], p[k]]);
  drawHead();
  drawTiles();
  drawSlow(state.workers);
  linePlot($('objective'), [
    { points: of(state.evaluations, 2), kind: 'compute', marks: true },
    { points: of(state.samples, 5), kind: 'faint', dash: [4, 3] }], { name: 'objective', time, least, note: '● evaluated, ┄ estimated' });
  linePlot($('gap'), [{ points: of(state.evaluations, 3), kind: 'compute', marks: true }],
    { name: 'gap', log: true, time, least, note: 'at most (F − F*) / F*', empty: 'none certified yet' });
  linePlot($('throughput'), [{ points: of(state.samples, 2), kind: 'compute', area: true }], { name: 'rows a second', zero: true, time, least, note: 'rows/s' });
  histogramPlot($('staleness'), state.staleness, state.status.staleness_mean || 0);
  lanesPlot($('lanes'), state);
  drawTable(state.workers);
  drawNotices();
  measured.updates++;
  measured.draw_ms.push(performance.now() - began);
  if (measured.draw_ms.length > 200) measured.draw_ms.shift();
}

function redraw() {
  if (!wanted) requestAnimationFrame(() => { wanted = false; draw(); });
  wanted = true;
}

readPalette();
drawLegend();
buildHeads(redraw);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { readPalette(); drawLegend(); redraw(); });
addEventListener('resize', redraw);
$('axis').onchange = redraw;
for (const id of ['objective', 'gap', 'throughput']) {
  $(id).onpointermove = event => { $(id).pointer = event.offsetX; redraw(); };
  $(id).onpointerleave = () => { $(id).pointer = undefined; redraw(); };
}
ask();
