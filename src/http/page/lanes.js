/* ---- a lane a worker ---- */

const KINDS = ['compute', 'delay', 'way', 'queue'];
const CELLS = 120, DIGITS = 4, TALL = 7, MOST_LANES = 256;

const legendNames = { compute: 'computing', delay: 'delayed on purpose', way: 'on the way', queue: 'queued', under: 'under way', wait: 'waiting' };
function drawLegend() {
  const legend = $('legend');
  if (!legend.children.length)
    for (const kind of Object.keys(legendNames)) {
      const item = document.createElement('span'), swatch = document.createElement('canvas');
      item.append(swatch, legendNames[kind]);
      swatch.dataset.kind = kind;
      legend.append(item);
    }
  for (const swatch of legend.querySelectorAll('canvas')) {
    const view = context(swatch);
    if (!view || swatch.dataset.kind === 'wait') continue;
    view.c.fillStyle = fill(swatch.dataset.kind);
    view.c.fillRect(0, 0, view.width, view.height);
  }
}

const digit = new Uint8Array(128);
for (let k = 0; k < 16; k++) digit['0123456789abcdef'.charCodeAt(k)] = k;

/* cells: Map half second -> text. The lanes hold `group` workers each. */
function lanesPlot(canvas, state) {
  const workers = state.workers.length;
  const group = Math.ceil(workers / MOST_LANES) || 1, lanes = Math.ceil(workers / group);
  const tall = Math.max(2, Math.min(18, Math.floor(420 / (lanes || 1)))), axis = 18;
  const view = context(canvas, Math.max(40, lanes * tall + axis));
  if (!view) return;
  const { c, width } = view, left = tall >= 10 ? Math.min(120, width * 0.24) : 20, right = 2;
  const now = state.status.seconds || 0, span = CELLS * state.cell_s, wide = (width - left - right) / CELLS;
  const first = Math.floor(now / state.cell_s) - CELLS + 1;
  const X = t => width - right - (now - t) / span * (width - left - right);
  say($('lanes-note'), group > 1 ? group + ' workers each' : '');
  canvas.setAttribute('aria-label', workers + ' workers in the last minute; the table has the figures');
  canvas.lane = y => Math.floor(y / tall) * group;
  if (tall >= TALL) tallLanes(view, state, { tall, left, first, X, wide });
  else thinLanes(view, state, { tall, left, first, X, group, lanes, right });
  c.fillStyle = palette.faint;
  c.textBaseline = 'alphabetic';
  for (let k = 0; k <= 6; k++) {
    c.textAlign = k === 0 ? 'right' : 'center';
    const x = width - right - (width - left - right) * k / 6;
    c.fillText(k ? '-' + span * k / 6 + ' s' : 'now', x, lanes * tall + 14);
  }
}

/* Each cell is a stack: what its time went to; what is left empty the worker waited. */
function tallLanes(view, state, at) {
  const { c, width } = view;
  state.workers.forEach((worker, k) => {
    const top = k * at.tall, base = top + at.tall - 1;
    c.fillStyle = palette.card;
    const begin = Math.max(at.left, at.X(0)); /* nobody waited before there was a run */
    c.fillRect(begin, top, Math.max(0, width - begin - 2), at.tall - 1);
    const until = state.until[k] || 0, gone = worker.state === 'dead';
    for (let cell = at.first; cell < at.first + CELLS; cell++) {
      const text = state.cells.get(cell);
      const x = Math.max(at.left, at.X(cell * state.cell_s)), end = Math.min(width - 2, at.X((cell + 1) * state.cell_s));
      if (!text || end <= x) continue;
      let y = base;
      for (let j = 0; j < DIGITS; j++) {
        const part = digit[text.charCodeAt(k * DIGITS + j)] / 15;
        if (!(part > 0)) continue;
        const h = part * (at.tall - 1);
        c.fillStyle = fill(KINDS[j]);
        c.fillRect(x, y - h, end - x + 0.3, h);
        y -= h;
      }
    }
    const from = Math.max(at.left, at.X(until));
    if ((worker.state === 'busy' || gone) && from < width - 2) {
      c.fillStyle = fill(gone ? 'dead' : 'under');
      c.fillRect(from, top + (gone ? at.tall / 2 - 1 : at.tall * 0.25), width - 2 - from, gone ? 2 : at.tall * 0.5);
    }
    if (at.left > 60 && at.tall >= 10) {
      c.fillStyle = worker.cause ? palette.warn : palette.ink;
      c.font = (worker.cause ? 'bold ' : '') + '11px system-ui, "DejaVu Sans", sans-serif';
      c.textAlign = 'left';
      c.textBaseline = 'middle';
      c.fillText((worker.cause ? '▲ ' : '') + worker.name, 0, top + at.tall / 2, at.left - 6);
    } else if (worker.cause) {
      markSlow(c, at.left, top + at.tall / 2);
    }
  });
}

function markSlow(c, x, y) {
  c.fillStyle = palette.warn;
  c.beginPath(); c.moveTo(x - 4, y); c.lineTo(x - 12, y - 4.5); c.lineTo(x - 12, y + 4.5); c.fill();
}

function colourOf(text) { /* #rrggbb as the canvas stores it */
  const v = parseInt(text.slice(1), 16);
  return 0xff000000 | (v & 0xff) << 16 | (v & 0xff00) | v >> 16;
}

/* Many: a pixel a cell, of what most of its time went to, stretched. */
function thinLanes(view, state, at) {
  const { c, width } = view, workers = state.workers.length;
  const image = c.createImageData(CELLS, at.lanes), pixels = new Uint32Array(image.data.buffer);
  const colours = KINDS.map(kind => colourOf(palette[kind])), wait = colourOf(palette.card), under = colourOf(palette.under);
  const dead = colourOf(palette.dead), sums = new Array(DIGITS);
  for (let x = 0; x < CELLS; x++) {
    const cell = at.first + x, text = state.cells.get(cell);
    for (let lane = 0; lane < at.lanes; lane++) {
      sums.fill(0);
      const end = Math.min(workers, (lane + 1) * at.group);
      let busy = 0, lost = 0;
      for (let k = lane * at.group; k < end; k++) {
        if (text) for (let j = 0; j < DIGITS; j++) sums[j] += digit[text.charCodeAt(k * DIGITS + j)] || 0;
        if ((cell + 1) * state.cell_s > (state.until[k] || 0)) { busy += state.workers[k].state === 'busy'; lost += state.workers[k].state === 'dead'; }
      }
      const whole = 15 * (end - lane * at.group);
      let best = -1, most = whole - sums.reduce((a, b) => a + b, 0);
      for (let j = 0; j < DIGITS; j++) if (sums[j] > most) { most = sums[j]; best = j; }
      pixels[lane * CELLS + x] = cell < 0 ? 0 : best >= 0 ? colours[best] : lost ? dead : 2 * busy > end - lane * at.group ? under : wait;
    }
  }
  const small = state.small || (state.small = document.createElement('canvas'));
  small.width = CELLS;
  small.height = at.lanes;
  small.getContext('2d').putImageData(image, 0, 0);
  c.imageSmoothingEnabled = false;
  const begin = at.X(at.first * state.cell_s), end = at.X((at.first + CELLS) * state.cell_s);
  c.save();
  c.beginPath(); c.rect(at.left, 0, width - at.left - at.right, at.lanes * at.tall); c.clip();
  c.drawImage(small, begin, 0, end - begin, at.lanes * at.tall);
  c.restore();
  state.workers.forEach((worker, k) => { if (worker.cause) markSlow(c, at.left, (Math.floor(k / at.group) + 0.5) * at.tall); });
}
