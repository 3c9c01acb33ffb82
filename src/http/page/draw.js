/* ---- small things: elements, numbers, canvases ---- */

function $(id) { return document.getElementById(id); }

/* Writes only what changed: most of a table stays as it is. */
function say(element, text) { if (element.textContent !== text) element.textContent = text; }

function known(x) { return typeof x === 'number' && isFinite(x); }

function count(x) {
  if (!known(x)) return '–';
  const units = ['', 'k', 'M', 'G', 'T', 'P'];
  let unit = 0;
  while (Math.abs(x) >= 999.5 && unit < 5) { x /= 1000; unit++; }
  return x.toFixed(unit && Math.abs(x) < 9.95 ? 1 : 0).replace('.0', '') + units[unit];
}

function seconds(x) {
  if (!known(x)) return '–';
  if (x < 60) return x.toFixed(x < 9.95 ? 1 : 0) + ' s';
  if (x < 3600) return Math.floor(x / 60) + 'm ' + String(Math.floor(x % 60)).padStart(2, '0') + 's';
  return Math.floor(x / 3600) + 'h ' + String(Math.floor(x % 3600 / 60)).padStart(2, '0') + 'm';
}

function short(x) { /* for axes */
  if (x === 0) return '0';
  const a = Math.abs(x);
  if (a >= 1000) return count(x);
  if (a >= 0.001) return String(Number(x.toPrecision(4)));
  return x.toExponential(0).replace('+', '');
}

function tiny(x, digits) {
  if (!known(x)) return '–';
  return x === 0 ? '0' : Math.abs(x) < 0.01 || Math.abs(x) >= 1e5 ? x.toExponential(digits) : x.toPrecision(digits + 1);
}

function millis(x) { return !known(x) ? '–' : x < 0.005 ? '0' : x < 9.995 ? x.toFixed(2) : x < 99.95 ? x.toFixed(1) : x.toFixed(0); }

const palette = {};
function readPalette() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ['ground', 'card', 'ink', 'faint', 'line', 'compute', 'delay', 'way', 'queue', 'under', 'dead', 'good', 'warn'])
    palette[name] = style.getPropertyValue('--' + name).trim();
}

/* A context in CSS pixels, cleared, at the screen's own resolution; null while the canvas has no size. */
function context(canvas, height) {
  const width = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
  if (height !== undefined && canvas.style.height !== height + 'px') canvas.style.height = height + 'px';
  height = height === undefined ? canvas.clientHeight : height;
  if (!width || !height) return null;
  const w = Math.round(width * ratio), h = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const c = canvas.getContext('2d');
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  c.font = '11px system-ui, "DejaVu Sans", sans-serif';
  return { c, width, height, ratio };
}

/* A colour with a pattern over it: colours alone do not reach everybody. */
const patterns = {};
function fill(kind) {
  const colour = palette[kind];
  if (patterns[kind] && patterns[kind].colour === colour) return patterns[kind].fill;
  const tile = document.createElement('canvas');
  tile.width = tile.height = 6;
  const c = tile.getContext('2d');
  c.fillStyle = colour;
  c.fillRect(0, 0, 6, 6);
  c.strokeStyle = c.fillStyle = palette.ground;
  c.lineWidth = 1.2;
  c.beginPath();
  if (kind === 'delay') for (const k of [-6, 0, 6]) { c.moveTo(k, 6); c.lineTo(k + 6, 0); }
  if (kind === 'queue') { c.moveTo(3, 0); c.lineTo(3, 6); }
  if (kind === 'under') { c.moveTo(0, 3); c.lineTo(6, 3); }
  c.stroke();
  if (kind === 'way') { c.fillRect(1, 1, 1.6, 1.6); c.fillRect(4, 4, 1.6, 1.6); }
  patterns[kind] = { colour, fill: kind === 'compute' || kind === 'dead' ? colour : c.createPattern(tile, 'repeat') };
  return patterns[kind].fill;
}
