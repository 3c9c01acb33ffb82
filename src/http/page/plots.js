/* ---- line plots and the histogram ---- */

function niceStep(span, parts) {
  const raw = span / parts, power = Math.pow(10, Math.floor(Math.log10(raw))), part = raw / power;
  return (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10) * power;
}

/* Ticks of [low, high]; on a log axis these are decades, or parts of one if there is less than two. */
function ticks(low, high, log, parts) {
  const out = [];
  if (log) {
    const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
    const every = Math.max(1, Math.ceil((last - first + 1) / parts));
    if (last - first < 1) return ticks(low, high, false, parts);
    for (let k = first; k <= last; k += every) out.push(Math.pow(10, k));
    return out;
  }
  const step = niceStep(high - low || 1, parts);
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) out.push(Number((k * step).toPrecision(12)));
  return out;
}

/* series: [{points: [[x, y], ...], kind, dash, marks, area}]; options: log, zero, unit. What the pointer is at goes to note. */
function linePlot(canvas, series, options) {
  const view = context(canvas);
  if (!view) return;
  const { c, width, height } = view, left = 46, right = 8, top = 8, bottom = 20;
  let x1 = 0, low = Infinity, high = -Infinity;
  for (const s of series)
    for (const [x, y] of s.points) {
      if (!known(y) || (options.log && y <= 0)) continue;
      x1 = Math.max(x1, x); low = Math.min(low, y); high = Math.max(high, y);
    }
  c.fillStyle = palette.faint;
  if (!(high >= low)) {
    c.textAlign = 'center';
    c.fillText(options.empty || 'nothing yet', width / 2, height / 2);
    canvas.setAttribute('aria-label', 'nothing yet');
    return;
  }
  const log = options.log || (!options.zero && low > 0 && high / low > 30);
  if (options.zero) low = Math.min(0, low);
  if (high === low) { high += Math.abs(high) * 0.05 || 1; if (!options.zero) low -= Math.abs(low) * 0.05 || 1; }
  if (log) { low *= 0.8; high *= 1.25; } else { const pad = (high - low) * 0.06; high += pad; if (low !== 0) low -= pad; }
  x1 = Math.max(x1, options.least || 0) || 1;
  const X = x => left + (width - left - right) * x / x1;
  const place = log ? y => Math.log(y / low) / Math.log(high / low) : y => (y - low) / (high - low);
  const Y = y => height - bottom - (height - top - bottom) * place(y);

  c.strokeStyle = palette.line;
  c.lineWidth = 1;
  c.textBaseline = 'middle';
  c.textAlign = 'right';
  for (const t of ticks(low, high, log, 5)) {
    const y = Math.round(Y(t)) + 0.5;
    c.beginPath(); c.moveTo(left, y); c.lineTo(width - right, y); c.stroke();
    c.fillText(short(t), left - 5, y);
  }
  c.textBaseline = 'alphabetic';
  c.textAlign = 'center';
  for (const t of ticks(0, x1, false, width < 300 ? 4 : 5)) {
    const x = X(t);
    if (x > width - right - 6 && t) c.textAlign = 'right';
    c.fillText(options.time ? (t >= 120 ? short(t / 60) + 'm' : short(t) + 's') : short(t), x, height - 6);
  }

  for (const s of series) {
    const points = s.points.filter(p => known(p[1]) && (!log || p[1] > 0));
    if (!points.length) continue;
    c.strokeStyle = c.fillStyle = palette[s.kind];
    c.lineWidth = s.dash ? 1.2 : 2;
    c.setLineDash(s.dash || []);
    c.beginPath();
    points.forEach(([x, y], k) => k ? c.lineTo(X(x), Y(y)) : c.moveTo(X(x), Y(y)));
    c.stroke();
    c.setLineDash([]);
    if (s.area) {
      c.lineTo(X(points[points.length - 1][0]), Y(low)); c.lineTo(X(points[0][0]), Y(low));
      c.globalAlpha = 0.18; c.fill(); c.globalAlpha = 1;
    }
    if (s.marks && points.length <= 60)
      for (const [x, y] of points) { c.beginPath(); c.arc(X(x), Y(y), 2.8, 0, 7); c.fill(); }
  }
  const last = series[0].points.filter(p => known(p[1])).pop();
  canvas.setAttribute('aria-label', last ? options.name + ' ' + tiny(last[1], 4) + ' at ' + short(last[0]) : 'nothing yet');
  readout(canvas, view, X, Y, series[0].points, options);
}

/* Where the pointer is, the point next to it. */
function readout(canvas, view, X, Y, points, options) {
  const note = $(canvas.id + '-note');
  if (canvas.pointer === undefined || !points.length) return say(note, options.note || '');
  let best = null;
  for (const p of points)
    if (known(p[1]) && (!options.log || p[1] > 0) && (!best || Math.abs(X(p[0]) - canvas.pointer) < Math.abs(X(best[0]) - canvas.pointer))) best = p;
  if (!best) return;
  const { c, height } = view;
  c.strokeStyle = palette.ink;
  c.beginPath(); c.moveTo(X(best[0]), 4); c.lineTo(X(best[0]), height - 20); c.stroke();
  c.beginPath(); c.arc(X(best[0]), Y(best[1]), 4.5, 0, 7); c.stroke();
  say(note, tiny(best[1], 6) + ' at ' + (options.time ? seconds(best[0]) : short(best[0]) + ' passes'));
}

function histogramPlot(canvas, counts, mean) {
  const view = context(canvas);
  if (!view) return;
  const { c, width, height } = view, left = 46, right = 8, top = 8, bottom = 20;
  const total = counts.reduce((a, b) => a + b, 0);
  c.fillStyle = palette.faint;
  if (!total) {
    c.textAlign = 'center';
    c.fillText('nothing yet', width / 2, height / 2);
    return say($('staleness-note'), '');
  }
  const bin = Math.ceil(counts.length / 32), bars = Math.ceil(counts.length / bin), shares = new Array(bars).fill(0);
  counts.forEach((n, k) => { shares[Math.floor(k / bin)] += n / total; });
  const most = Math.max(...shares) * 1.06, wide = (width - left - right) / bars;
  c.textBaseline = 'middle';
  c.strokeStyle = palette.line;
  c.textAlign = 'right';
  for (const t of ticks(0, most, false, 4)) {
    const y = height - bottom - (height - top - bottom) * t / most;
    c.beginPath(); c.moveTo(left, y); c.lineTo(width - right, y); c.stroke();
    c.fillText(Number((100 * t).toPrecision(3)) + '%', left - 5, y);
  }
  c.textBaseline = 'alphabetic';
  c.textAlign = 'center';
  const every = Math.ceil(bars / Math.max(2, Math.floor((width - left) / (bin === 1 ? 40 : 76))));
  shares.forEach((s, k) => {
    const x = left + k * wide, h = (height - top - bottom) * s / most;
    c.fillStyle = palette.compute;
    c.fillRect(x + Math.min(1, wide / 6), height - bottom - h, wide - Math.min(2, wide / 3), h);
    c.fillStyle = palette.faint;
    const from = k * bin;
    if (k % every === 0) c.fillText(from >= 1024 ? '1024+' : bin === 1 ? from : from + '–' + (from + bin - 1), x + wide / 2, height - 6);
  });
  const x = left + wide * (mean / bin + (bin === 1 ? 0.5 : 0));
  c.strokeStyle = palette.delay;
  c.setLineDash([4, 3]);
  c.lineWidth = 2;
  c.beginPath(); c.moveTo(x, top); c.lineTo(x, height - bottom); c.stroke();
  c.setLineDash([]);
  say($('staleness-note'), '┆ mean ' + mean.toFixed(1));
  canvas.setAttribute('aria-label', 'staleness of ' + total + ' results, mean ' + mean.toFixed(1) + ' commits');
}
