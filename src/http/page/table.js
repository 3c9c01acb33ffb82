/* ---- the workers ---- */

const MEGA = 1e-6;
/* title, value to sort by, text, class */
const COLUMNS = [
  ['worker', w => w.number, w => (w.cause ? '▲ ' : '') + w.name, 'text'],
  ['state', w => w.state, w => w.state, 'text'],
  ['× median', w => w.slowdown, w => known(w.slowdown) ? w.slowdown.toFixed(1) : '–', ''],
  ['why slow', w => w.cause, w => w.cause, 'text'],
  ['tasks', w => w.tasks, w => count(w.tasks), ''],
  ['task ms', w => w.task_ms_mean, w => millis(w.task_ms_mean), ''],
  ['p95', w => w.task_ms_p95, w => millis(w.task_ms_p95), 'wide'],
  ['computing', w => w.compute_ms_mean, w => millis(w.compute_ms_mean), 'wide'],
  ['delayed', w => w.delay_ms_mean, w => millis(w.delay_ms_mean), 'wide'],
  ['network', w => w.receive_ms_mean + w.send_ms_mean, w => millis(w.receive_ms_mean + w.send_ms_mean), 'wide'],
  ['queued', w => w.held_ms_mean + w.queue_ms_mean, w => millis(w.held_ms_mean + w.queue_ms_mean), 'wide'],
  ['wait', w => w.wait_ms_mean, w => millis(w.wait_ms_mean), 'wide'],
  ['stale', w => w.staleness_mean, w => known(w.staleness_mean) ? w.staleness_mean.toFixed(1) + '/' + w.staleness_max : '–', 'wide'],
  ['rows', w => w.rows_held, w => count(w.rows_held), 'wide'],
  ['MB out/in', w => w.bytes_sent, w => known(w.bytes_sent) ? (w.bytes_sent * MEGA).toFixed(1) + '/' + (w.bytes_received * MEGA).toFixed(1) : '–', 'wide'],
  ['device', w => w.device, w => w.device, 'text device'],
];
const order = { column: 0, down: false, all: false };
const SHOWN = 32;

function buildHeads(redraw) {
  COLUMNS.forEach(([title, , , kind], k) => {
    const head = document.createElement('th'), button = document.createElement('button');
    head.className = kind;
    head.scope = 'col';
    button.textContent = title;
    button.onclick = () => {
      order.down = order.column === k ? !order.down : !kind.includes('text');
      order.column = k;
      redraw();
    };
    head.append(button);
    $('heads').append(head);
  });
  $('filter').oninput = redraw;
  $('all').onclick = () => { order.all = !order.all; redraw(); };
}

function drawTable(workers) {
  const wanted = $('filter').value.trim().toLowerCase(), value = COLUMNS[order.column][1];
  let shown = workers.filter(w => !wanted || [w.name, w.device, w.state, w.cause].join(' ').toLowerCase().includes(wanted));
  const found = shown.length;
  shown.sort((a, b) => {
    const x = value(a), y = value(b), sign = order.down ? -1 : 1;
    return (x > y ? sign : x < y ? -sign : 0) || a.number - b.number;
  });
  if (!order.all) shown = shown.slice(0, SHOWN);
  [...$('heads').children].forEach((head, k) => {
    if (k === order.column) head.setAttribute('aria-sort', order.down ? 'descending' : 'ascending');
    else head.removeAttribute('aria-sort');
  });
  const body = $('rows');
  while (body.children.length > shown.length) body.lastChild.remove();
  while (body.children.length < shown.length) {
    const row = document.createElement('tr');
    for (const [, , , kind] of COLUMNS) { const cell = document.createElement('td'); cell.className = kind; row.append(cell); }
    body.append(row);
  }
  shown.forEach((w, k) => {
    const row = body.children[k], kind = w.state === 'dead' ? 'dead' : w.cause ? 'slow' : '';
    if (row.className !== kind) row.className = kind;
    row.dataset.worker = w.name;
    if (row.title !== w.device) row.title = w.device;
    COLUMNS.forEach((column, j) => say(row.children[j], column[2](w)));
  });
  const more = $('all');
  more.hidden = found <= SHOWN;
  say(more, order.all ? 'show ' + SHOWN + ' only' : 'show all ' + found);
  say($('workers-note'), found === workers.length ? String(workers.length) : found + ' of ' + workers.length);
}

/* Who stands out, in words: the slow one's name and why. */
function drawSlow(workers) {
  const slow = workers.filter(w => w.cause).sort((a, b) => b.slowdown - a.slowdown), box = $('slow'), most = 3;
  const lines = slow.slice(0, most).map(w => '▲ ' + w.name + ' is slow: ' + w.slowdown.toFixed(1) + '× the median, ' + w.cause);
  if (slow.length > most) lines.push('and ' + (slow.length - most) + ' more: sort the table by × median');
  while (box.children.length > lines.length) box.lastChild.remove();
  while (box.children.length < lines.length) box.append(document.createElement('p'));
  lines.forEach((line, k) => say(box.children[k], line));
}
