// What the page of a front computes in the browser: pure functions of columns, nothing is drawn here.
// They mean the same as hpo/pareto.py, hpo/problem.py and dashboards/front.py; the tests compare them.
window.hpo = window.hpo || {};

hpo.numbers = (() => {
  const OPEN = 0, INCOMPLETE = 1, BEYOND = 2, DOMINATED = 3, FRONT = 4;
  const WORDS = ["", "lacks an objective", "breaks a limit", "dominated", "front"];

  const decoded = (text, Type) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return new Type(bytes.buffer);
  };

  // The trials of a feed: columns by metric, and where each number stands in them.
  const read = (feed) => {
    const sent = feed.columns;
    const number = decoded(sent.number, Int32Array);
    return {
      count: number.length,
      number,
      state: decoded(sent.state, Uint8Array),
      seconds: decoded(sent.seconds, Float32Array),
      values: sent.values.map((text) => decoded(text, Float64Array)),
      spreads: sent.spreads.map((text) => decoded(text, Float32Array)),
      modelled: sent.modelled.map((text) => decoded(text, Uint8Array)),
      anchors: new Map(Object.entries(sent.anchors).map(([n, name]) => [Number(n), name])),
      causes: new Map(Object.entries(sent.causes).map(([n, cause]) => [Number(n), cause])),
      origins: sent.origins,
      recipes: sent.recipes,
      place: new Map(Array.from(number, (n, i) => [n, i])),
    };
  };

  const grown = (column, length) => {
    const found = new column.constructor(length);
    found.set(column);
    return found;
  };

  // Return the table with the trials of another put in their places, new ones behind the others.
  const merged = (table, news) => {
    const place = new Map(table.place);
    const order = [];
    for (let i = 0; i < news.count; i++) {
      const at = place.get(news.number[i]) ?? place.size;
      place.set(news.number[i], at);
      order.push(at);
    }
    const into = (old, fresh) => {
      const found = Array.isArray(old) ? old.slice() : grown(old, place.size);
      order.forEach((at, i) => { found[at] = fresh[i]; });
      return found;
    };
    const each = (old, fresh) => old.map((column, k) => into(column, fresh[k]));
    return {
      count: place.size,
      place,
      number: into(table.number, news.number),
      state: into(table.state, news.state),
      seconds: into(table.seconds, news.seconds),
      values: each(table.values, news.values),
      spreads: each(table.spreads, news.spreads),
      modelled: each(table.modelled, news.modelled),
      anchors: new Map([...table.anchors, ...news.anchors]),
      causes: new Map([...table.causes, ...news.causes]),
      origins: into(table.origins, news.origins),
      recipes: into(table.recipes, news.recipes),
    };
  };

  const keeps = (metric, value, limit) => (metric.lower ? value <= limit : value >= limit);

  // Columns of losses, smaller is better, of the first so many metrics.
  const losses = (table, metrics, objectives) =>
    table.values.slice(0, objectives).map((column, k) => (metrics[k].lower ? column : column.map((v) => -v)));

  // Return which of some rows no other of them dominates; equal rows all stay.
  const nondominated = (columns, rows) => {
    const total = (i) => columns.reduce((sum, column) => sum + column[i], 0);
    const sums = new Map(rows.map((i) => [i, total(i)]));
    const sorted = rows.slice().sort((i, j) => sums.get(i) - sums.get(j));
    const front = [];
    const first = columns[0];
    const width = columns.length;
    for (const i of sorted) {
      let beaten = false;
      for (let f = 0; f < front.length && !beaten; f++) {
        const j = front[f];
        if (first[j] > first[i]) continue;
        let behind = first[j] < first[i], k = 1;
        while (k < width && columns[k][j] <= columns[k][i]) {
          behind ||= columns[k][j] < columns[k][i];
          k++;
        }
        if (k === width && behind) {
          beaten = true;
          if (f > 0) [front[f], front[f >> 1]] = [front[f >> 1], front[f]]; // who beats one, beats more
        }
      }
      if (!beaten) front.push(i);
    }
    return front.sort((i, j) => i - j);
  };

  // How each trial stands in all objectives of the study, under the study's own limits.
  const standings = (table, metrics, objectives, completed) => {
    const found = new Uint8Array(table.count);
    const inside = [];
    for (let i = 0; i < table.count; i++) {
      if (table.state[i] !== completed) continue;
      let code = DOMINATED;
      for (let k = 0; k < objectives; k++) {
        const value = table.values[k][i];
        if (Number.isNaN(value)) code = code === BEYOND ? BEYOND : INCOMPLETE;
        else if (metrics[k].limit !== null && !keeps(metrics[k], value, metrics[k].limit)) code = BEYOND;
      }
      found[i] = code;
      if (code === DOMINATED) inside.push(i);
    }
    for (const i of nondominated(losses(table, metrics, objectives), inside)) found[i] = FRONT;
    return found;
  };

  // The rows that keep limits of one's own, [metric, worst value] pairs, beside those of the study.
  const kept = (table, metrics, standing, limits) => {
    const found = new Uint8Array(table.count);
    for (let i = 0; i < table.count; i++) {
      found[i] = standing[i] >= DOMINATED
        && limits.every(([k, worst]) => keeps(metrics[k], table.values[k][i], worst));
    }
    return found;
  };

  // The front of the rows that are kept. Limits on objectives only take members away: whoever dominates
  // a trial that keeps them keeps them too. A limit on another metric may bring in who was dominated.
  const frontUnder = (table, metrics, objectives, standing, inside, limits) => {
    const rows = [];
    const only = limits.every(([k]) => k < objectives);
    for (let i = 0; i < table.count; i++) {
      if (inside[i] && (!only || standing[i] === FRONT)) rows.push(i);
    }
    return only ? rows : nondominated(losses(table, metrics, objectives), rows);
  };

  // The row nearest to the ideal of some rows, all objectives scaled to them; -1 if there are none.
  const knee = (table, metrics, objectives, rows) => {
    if (!rows.length) return -1;
    const columns = losses(table, metrics, objectives);
    const scaled = columns.map((column) => {
      let low = Infinity, high = -Infinity;
      for (const i of rows) { low = Math.min(low, column[i]); high = Math.max(high, column[i]); }
      return (i) => (high > low ? (column[i] - low) / (high - low) : 0);
    });
    let best = -1, least = Infinity;
    for (const i of rows) {
      const distance = Math.hypot(...scaled.map((scale) => scale(i)));
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  };

  // Corners of the attainment line of some rows in two metrics, from the worst of one to the worst of the other.
  const staircase = (table, metrics, x, y, rows, drawn) => {
    const [across, up] = [x, y].map((k) => (metrics[k].lower ? 1 : -1));
    const xs = table.values[x], ys = table.values[y];
    const points = rows.filter((i) => !Number.isNaN(xs[i]) && !Number.isNaN(ys[i]))
      .map((i) => [across * xs[i], up * ys[i]]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    const best = [];
    for (const point of points) {
      if (!best.length || point[1] < best[best.length - 1][1]) best.push(point);
    }
    if (!best.length) return [];
    let right = -Infinity, top = -Infinity;
    for (const i of drawn) {
      right = Math.max(right, across * xs[i]);
      top = Math.max(top, up * ys[i]);
    }
    const line = [[best[0][0], top]];
    best.forEach((here, i) => {
      line.push(here, [i + 1 < best.length ? best[i + 1][0] : right, here[1]]);
    });
    return line.map(([a, b]) => [across * a, up * b]);
  };

  // Of trials that break limits, the one that breaks them least: [row, metric, share of the limit beyond it].
  const nearest = (table, metrics, standing, limits) => {
    let best = null;
    for (let i = 0; i < table.count; i++) {
      if (standing[i] < DOMINATED) continue;
      let worst = [i, -1, 0];
      for (const [k, limit] of limits) {
        const beyond = (metrics[k].lower ? 1 : -1) * (table.values[k][i] - limit) / (Math.abs(limit) || 1);
        if (!(beyond <= worst[2])) worst = [i, k, Number.isNaN(beyond) ? Infinity : beyond];
      }
      if (worst[1] >= 0 && (best === null || worst[2] < best[2])) best = worst;
    }
    return best;
  };

  // At most so many of some rows, evenly taken.
  const thinned = (rows, most) => {
    if (rows.length <= most) return rows;
    return Array.from({ length: most }, (_, k) => rows[Math.floor((k * rows.length) / most)]);
  };

  const range = (column, rows) => {
    let low = Infinity, high = -Infinity;
    for (const i of rows) {
      if (Number.isNaN(column[i])) continue;
      low = Math.min(low, column[i]);
      high = Math.max(high, column[i]);
    }
    return [low, high];
  };

  return {
    OPEN, INCOMPLETE, BEYOND, DOMINATED, FRONT, WORDS,
    read, merged, keeps, nondominated, standings, kept, frontUnder, knee, staircase, nearest, thinned, range,
  };
})();
