// Draws the front of a study in two metrics: columns -> traces and a layout for Plotly. Nothing is computed
// here but positions; what the marks mean is said by shape and words as well as by colour.
window.hpo = window.hpo || {};

hpo.figure = (() => {
  const N = hpo.numbers, T = hpo.text;
  const CROWD = 1500; // marks from which those behind the front are one picture: SVG would take seconds
  const BARS = 100; // marks up to which their spreads are drawn; of more, pointing at one tells
  const LONG = 150; // members of a front up to which each is a mark of its own
  const LOG_SPAN = 5; // ratio of the largest to the smallest value from which an axis is logarithmic
  const LIMIT_ROOM = 1.6; // a limit farther away than so many spans of the data is not drawn
  const PADDING = 0.08;
  const SMALLEST = 7, LARGEST = 26; // pixels of a mark whose size says something

  const axis = (table, metric, column, rows, limit, log, arrows) => {
    let [low, high] = N.range(column, rows);
    if (!(low <= high)) [low, high] = [0, 1];
    const room = LIMIT_ROOM * Math.max(high - low, 0.1 * Math.abs(high));
    const drawsLimit = limit !== null && limit >= low - room && limit <= high + room;
    if (drawsLimit) [low, high] = [Math.min(low, limit), Math.max(high, limit)];
    const logarithmic = low > 0 && (log ?? high / low >= LOG_SPAN);
    const end = (v) => (logarithmic ? Math.log10(v / metric.divisor) : v / metric.divisor);
    const from = end(low), to = end(high);
    const pad = PADDING * (to - from) || Math.max(Math.abs(to) * PADDING, 1e-9);
    const far = limit === null || drawsLimit ? "" : `, limit ${T.number(limit / metric.divisor)}`;
    const modelled = metric.modelled ? " (modelled)" : "";
    const better = metric.lower ? `${arrows[0]} lower` : `${arrows[1]} higher`;
    const layout = {
      title: { text: `${metric.label} [${metric.unit}]${modelled}${far}<br>${better} is better`, standoff: 8 },
      type: logarithmic ? "log" : "linear",
      range: [from - pad, to + pad],
      exponentformat: "none",
      tickmode: "auto",
    };
    if (logarithmic) {
      const ticks = T.logTicks(from - pad, to + pad);
      Object.assign(layout, { tickmode: "array", tickvals: ticks, ticktext: ticks.map((t) => T.number(t)) });
    }
    return { layout, logarithmic, drawsLimit, limit, metric };
  };

  const told = (view, i) => {
    const { table, metrics } = view;
    const lines = [`<b>trial ${table.number[i]}</b> (${T.escaped(table.origins[i])})`, N.WORDS[view.standing[i]]];
    metrics.forEach((metric, k) => {
      if (Number.isNaN(table.values[k][i])) return;
      const text = T.spread(metric, table.values[k][i], table.spreads[k][i]);
      lines.push(`${metric.label}: <b>${text}</b>${table.modelled[k][i] ? " (modelled)" : ""}`);
    });
    for (const part of table.recipes[i].split(", ")) {
      lines.push(T.escaped(part.length > 60 ? `${part.slice(0, 59)}…` : part));
    }
    return lines.join("<br>");
  };

  const hollow = (view, i, shape) =>
    (view.table.modelled[view.x][i] || view.table.modelled[view.y][i] ? `${shape}-open` : shape);

  // One symbol for all where it is the same: Plotly is quicker with it.
  const symbols = (view, rows, shape) => {
    const some = view.metrics[view.x].modelled || view.metrics[view.y].modelled;
    return some ? Array.from(rows, (i) => hollow(view, i, shape)) : shape;
  };

  // Where marks stand, what they say and are: the part that all traces of marks share.
  const marks = (view, rows, name, shape, style) => {
    const { table, metrics } = view;
    const along = (k) => Array.from(rows, (i) => table.values[k][i] / metrics[k].divisor);
    return {
      type: "scatter",
      mode: "markers",
      name,
      x: along(view.x),
      y: along(view.y),
      customdata: Array.from(rows, (i) => table.number[i]),
      marker: { ...style, symbol: symbols(view, rows, shape) },
      // Words for hundreds of marks take longer than their picture: of a crowd, the page says what is pointed at.
      ...(view.crowded ? { hoverinfo: "none" } : { hovertext: Array.from(rows, (i) => told(view, i)), hoverinfo: "text" }),
    };
  };

  const errors = (view, rows, k, colour) => {
    if (rows.length > BARS) return { visible: false };
    const array = Array.from(rows, (i) => view.table.spreads[k][i] / view.metrics[k].divisor);
    return { array, visible: array.some((s) => s > 0), color: colour, thickness: 1, width: 3 };
  };

  const painted = (view, rows, marker) => {
    const { table, metrics, colour, size } = view;
    const found = { ...marker };
    if (size !== null) {
      const [low, high] = N.range(table.values[size], view.drawn);
      found.size = Array.from(rows, (i) => {
        const share = high > low ? (table.values[size][i] - low) / (high - low) : 0.5;
        return Number.isNaN(share) ? SMALLEST : SMALLEST + (LARGEST - SMALLEST) * Math.sqrt(share);
      });
      found.opacity = 0.75;
    }
    if (colour !== null) {
      const metric = metrics[colour];
      const [low, high] = N.range(table.values[colour], view.drawn);
      Object.assign(found, {
        color: Array.from(rows, (i) => table.values[colour][i] / metric.divisor), coloraxis: "coloraxis",
      });
      view.coloraxis = {
        cmin: low / metric.divisor, cmax: high / metric.divisor, colorscale: "Cividis", reversescale: !metric.lower,
        colorbar: { title: { text: `${metric.label} [${metric.unit}]`, side: "right" }, thickness: 12, len: 0.8 },
      };
    }
    return found;
  };

  // A colour that says something is for those that can be had; the others keep their own.
  const behindPaint = (view, rows, shape, marker) =>
    painted(shape === "circle" ? view : { ...view, colour: null }, rows, marker);

  // Rows by how they are drawn, and the kinds of marks that stand behind the front.
  const grouped = (view) => {
    const { table, style, standing } = view;
    const groups = { outside: [], incomplete: [], dominated: [], front: [], anchors: [] };
    const members = new Set(view.front);
    for (const i of view.drawn) {
      if (table.anchors.has(table.number[i])) groups.anchors.push(i);
      else if (members.has(i)) groups.front.push(i);
      else if (view.inside[i]) groups.dominated.push(i);
      else groups[standing[i] === N.INCOMPLETE ? "incomplete" : "outside"].push(i);
    }
    const crowded = view.drawn.length > CROWD;
    view.crowded = crowded;
    const outside = view.limits.size ? "beyond a limit" : "breaks a limit";
    const behind = [
      [groups.outside, outside, "x", { color: style.outside, size: crowded ? 5 : 6, opacity: crowded ? 0.35 : 0.7 }],
      [groups.incomplete, "lacks an objective", "triangle-up", { color: style.dominated, size: 8, opacity: 0.6 }],
      [groups.dominated, "dominated", "circle", { color: style.dominated, size: crowded ? 5 : 8, opacity: 0.6 }],
    ].filter(([rows]) => rows.length);
    if (crowded && groups.front.length > LONG) { // so long a front is part of the picture too
      const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
      const edge = { color: dark ? style.front_dark : style.front, size: 8, opacity: 1 };
      behind.push([groups.front, `front of all ${view.objectives} objectives`, "circle", edge]);
      groups.front = [];
    }
    return { groups, members, behind, crowded };
  };

  const traces = (view, { groups, members, behind, crowded }) => {
    const { style } = view;
    const found = behind.map(([rows, name, shape, marker]) => (crowded
      ? { type: "scatter", mode: "markers", name, x: [null], y: [null], marker: { ...marker, symbol: shape, size: 8 } }
      : marks(view, rows, name, shape, behindPaint(view, rows, shape, marker))));
    if (view.stairs.length) {
      found.push({
        type: "scatter", mode: "lines", name: "attained in these two", hoverinfo: "skip", opacity: 0.6,
        x: view.stairs.map(([a]) => a / view.metrics[view.x].divisor),
        y: view.stairs.map(([, b]) => b / view.metrics[view.y].divisor),
        line: { color: style.front, width: 1.5 },
      });
    }
    const bars = (rows, colour) => ({
      error_x: errors(view, rows, view.x, colour), error_y: errors(view, rows, view.y, colour),
    });
    if (groups.front.length) {
      const edge = view.colour === null ? {} : { line: { color: style.front, width: 2 } };
      const marker = painted(view, groups.front, { color: style.front, size: 11, ...edge });
      const name = `front of all ${view.objectives} objectives`;
      found.push({ ...marks(view, groups.front, name, "circle", marker), ...bars(groups.front, style.front) });
    }
    if (groups.anchors.length) found.push({ ...anchors(view, groups.anchors, members), ...bars(groups.anchors, style.dominated) });
    found.push(...points(view));
    return found;
  };

  const anchors = (view, rows, members) => {
    const { table, style } = view;
    const colour = (i) => (members.has(i) ? style.front : view.inside[i] ? style.dominated : style.outside);
    const trace = marks(view, rows, "anchors", "diamond", { size: 12 });
    const name = (i) => table.anchors.get(table.number[i]);
    return {
      ...trace,
      mode: "markers+text",
      text: rows.map((i) => T.escaped(name(i))),
      textposition: "top center",
      cliponaxis: false,
      marker: {
        size: 12,
        color: rows.map(colour),
        symbol: rows.map((i) => hollow(view, i, name(i) === "dense" ? "star" : "diamond")),
      },
    };
  };

  // The recommended trial, and the corner from which the hypervolume is counted.
  const points = (view) => {
    const { metrics, style, table } = view;
    const one = (x, y, name, marker) => ({
      type: "scatter", mode: "markers", name, hoverinfo: "skip",
      x: [x / metrics[view.x].divisor], y: [y / metrics[view.y].divisor], marker,
    });
    const found = [];
    const best = view.recommended;
    if (best >= 0 && view.drawn.includes(best)) {
      const ring = { symbol: "circle-open", size: 22, color: style.recommended, line: { width: 2.5 } };
      const word = view.limits.size ? "recommended" : "knee";
      found.push(one(table.values[view.x][best], table.values[view.y][best], `${word}: trial ${table.number[best]}`, ring));
    }
    const [a, b] = [metrics[view.x].reference, metrics[view.y].reference];
    if (a !== null && b !== null && view.referenceNear) {
      found.push(one(a, b, "reference point", { symbol: "cross-thin", size: 14, line: { width: 2.5, color: style.reference } }));
    }
    return found;
  };

  const limitLines = (axes, colour) => {
    const shapes = [], annotations = [];
    for (const [letter, other] of [["x", "y"], ["y", "x"]]) {
      const { limit, drawsLimit, logarithmic, metric } = axes[letter];
      if (!drawsLimit) continue;
      const at = limit / metric.divisor;
      shapes.push({
        type: "line", line: { color: colour, dash: "dash", width: 1.5 },
        [`${letter}0`]: at, [`${letter}1`]: at, [`${other}0`]: 0, [`${other}1`]: 1, [`${other}ref`]: "paper",
      });
      annotations.push({
        text: "limit", showarrow: false, [letter]: logarithmic ? Math.log10(at) : at, [other]: 1,
        [`${other}ref`]: "paper", xanchor: "right", yanchor: letter === "y" ? "bottom" : "top",
      });
    }
    return { shapes, annotations };
  };

  // The whole figure of a view; `base` is a layout with the common look.
  const front = (view, base) => {
    const { table, metrics, x, y } = view;
    const worst = (k) => view.limits.get(k) ?? metrics[k].limit;
    const axes = {
      x: axis(table, metrics[x], table.values[x], view.drawn, worst(x), view.logX, ["←", "→"]),
      y: axis(table, metrics[y], table.values[y], view.drawn, worst(y), view.logY, ["↓", "↑"]),
    };
    const within = (k, letter) => {
      const at = metrics[k].reference;
      if (at === null) return false;
      const [low, high] = axes[letter].layout.range;
      const place = axes[letter].logarithmic ? Math.log10(at / metrics[k].divisor) : at / metrics[k].divisor;
      return place >= low && place <= high;
    };
    view.referenceNear = within(x, "x") && within(y, "y");
    const layout = {
      ...base,
      xaxis: { ...base.xaxis, ...axes.x.layout },
      yaxis: { ...base.yaxis, ...axes.y.layout },
      ...limitLines(axes, view.style.outside),
      hovermode: "closest",
      dragmode: view.selecting ? "select" : "zoom",
      uirevision: [metrics[x].name, metrics[y].name, axes.x.logarithmic, axes.y.logarithmic].join("|"),
    };
    const parts = grouped(view);
    const { groups } = parts;
    const cloud = parts.crowded ? { behind: parts.behind, before: [...groups.front, ...groups.anchors] } : null;
    const data = traces(view, parts);
    if (view.colour !== null && view.coloraxis) layout.coloraxis = view.coloraxis; // one bar for all marks
    return { data, layout, cloud, axes };
  };

  const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];

  // What stands behind the front as one picture that lies in the axes: Plotly's layout.images. Ranges are those of
  // the axes, logarithms where they are logarithmic; the place of each mark comes with it, for pointing at.
  const picture = (view, cloud, axes, ranges, width, height) => {
    const { table, metrics } = view;
    const ratio = window.devicePixelRatio || 1;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const place = (letter, k, length, flip) => {
      const [from, to] = ranges[letter], column = table.values[k], { divisor } = metrics[k];
      const log = axes[letter].logarithmic;
      return (i) => {
        const share = ((log ? Math.log10(column[i] / divisor) : column[i] / divisor) - from) / (to - from);
        return length * (flip ? 1 - share : share);
      };
    };
    const across = place("x", view.x, width, false), up = place("y", view.y, height, true);
    const spots = [];
    const spot = (i) => {
      const [x, y] = [across(i), up(i)];
      const inside = x >= 0 && y >= 0 && x <= width && y <= height;
      if (inside) spots.push([x / width, y / height, i]);
      return inside ? [x, y] : null;
    };
    cloud.before.forEach(spot); // Plotly draws them
    for (const [rows, , shape, marker] of cloud.behind) {
      const paint = behindPaint(view, rows, shape, marker), scale = view.coloraxis;
      pen.globalAlpha = paint.opacity;
      rows.forEach((i, r) => {
        const at = spot(i);
        if (!at) return;
        const [x, y] = at;
        const radius = (Array.isArray(paint.size) ? paint.size[r] : paint.size) / 2;
        const share = Array.isArray(paint.color) ? (paint.color[r] - scale.cmin) / (scale.cmax - scale.cmin || 1) : 0;
        const colour = Array.isArray(paint.color)
          ? CIVIDIS[Math.min(9, Math.max(0, Math.floor(10 * (scale.reversescale ? 1 - share : share))))] : paint.color;
        pen.fillStyle = pen.strokeStyle = colour;
        pen.beginPath();
        if (shape === "x") {
          pen.moveTo(x - radius, y - radius); pen.lineTo(x + radius, y + radius);
          pen.moveTo(x - radius, y + radius); pen.lineTo(x + radius, y - radius);
          pen.stroke();
        } else {
          pen.arc(x, y, radius, 0, 2 * Math.PI);
          pen.fill();
        }
      });
    }
    const image = {
      source: canvas.toDataURL(), xref: "x", yref: "y", sizing: "stretch", layer: "below",
      x: ranges.x[0], y: ranges.y[1], sizex: ranges.x[1] - ranges.x[0], sizey: ranges.y[1] - ranges.y[0],
    };
    return { image, spots };
  };

  return { front, picture, axis, told, LOG_SPAN };
})();
