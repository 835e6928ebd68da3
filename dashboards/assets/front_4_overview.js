// Draws all objectives of a study at once: parallel coordinates, and every pair of them.
window.hpo = window.hpo || {};

hpo.overview = (() => {
  const N = hpo.numbers, T = hpo.text;
  const { LOG_SPAN } = hpo.figure;

  const placed = (table, metric, k, rows) => {
    const [low, high] = N.range(table.values[k], rows);
    const log = low > 0 && high / low >= LOG_SPAN;
    const end = (value) => (log ? Math.log10(value / metric.divisor) : value / metric.divisor);
    const [from, to] = [end(low), end(high)];
    const share = (value) => (to > from ? (end(value) - from) / (to - from) : 0.5);
    return {
      height: (value) => (metric.lower ? 1 - share(value) : share(value)), // better is up
      value: (height) => {
        const at = from + (metric.lower ? 1 - height : height) * (to - from);
        return (log ? 10 ** at : at) * metric.divisor;
      },
      ticks: log ? T.logTicks(from, to).map((t) => t * metric.divisor)
        : Array.from({ length: 5 }, (_, n) => (from + ((to - from) * n) / 4) * metric.divisor),
    };
  };

  // Parallel coordinates of all objectives, 1 on top is the best value of each.
  const parallel = (view, base, most) => {
    const { table, objectives } = view;
    const metrics = view.metrics.slice(0, objectives);
    const members = new Set(view.front);
    const scales = metrics.map((metric, k) => placed(table, metric, k, view.complete));
    const others = (inside) => N.thinned(view.complete.filter((i) => !members.has(i) && Boolean(view.inside[i]) === inside), most);
    const lines = (rows, name, colour, width, opacity) => {
      const x = [], y = [];
      for (const i of rows) {
        scales.forEach((scale, k) => { x.push(k); y.push(scale.height(table.values[k][i])); });
        x.push(null); y.push(null);
      }
      return { type: "scatter", mode: "lines", name, x, y, opacity, line: { color: colour, width }, hoverinfo: "skip" };
    };
    const limits = { x: [], y: [] };
    for (const [k, worst] of view.limits) {
      if (k >= objectives) continue;
      const y = Math.min(Math.max(scales[k].height(worst), 0), 1);
      limits.x.push(k - 0.12, k + 0.12, null);
      limits.y.push(y, y, null);
    }
    const annotations = scales.flatMap((scale, k) => scale.ticks.map((value) => ({
      x: k, y: scale.height(value), text: T.number(value / metrics[k].divisor, 3), showarrow: false,
      xanchor: "right", xshift: -5, font: { size: 11 },
    })));
    const data = [
      lines(others(false), "beyond a limit", view.style.outside, 0.6, 0.25),
      lines(others(true), "dominated", view.style.dominated, 0.8, 0.45),
      lines(view.front, "front", view.style.front, 1.4, 0.8),
    ].filter((trace) => trace.x.length);
    if (limits.x.length) {
      data.push({ type: "scatter", mode: "lines", name: "limit", hoverinfo: "skip", ...limits, line: { color: view.style.outside, width: 4 } });
    }
    return {
      data,
      scales,
      layout: {
        ...base, height: 360, shapes: metrics.map((_, k) => ({
          type: "line", x0: k, x1: k, y0: 0, y1: 1, line: { color: view.style.dominated, width: 1.5 }, layer: "below",
        })),
        annotations, images: [], uirevision: "parallel", hovermode: false, dragmode: "select", selectdirection: "any",
        margin: { l: 46, r: 20, t: 20, b: 74 },
        xaxis: {
          range: [-0.35, objectives - 0.75], showgrid: false, zeroline: false, fixedrange: true, type: "linear",
          tickmode: "array", tickvals: metrics.map((_, k) => k),
          ticktext: metrics.map((m) => `${m.label.replaceAll(" ", "<br>")}<br>[${m.unit}]`),
        },
        yaxis: { range: [-0.04, 1.04], visible: false, fixedrange: true, type: "linear" },
      },
    };
  };

  // Every pair of objectives, of the first six.
  const matrix = (view, base, most) => {
    const { table } = view;
    const metrics = view.metrics.slice(0, Math.min(view.objectives, 6));
    const members = new Set(view.front);
    const groups = [
      [N.thinned(view.complete.filter((i) => view.inside[i] && !members.has(i)), most), "dominated", view.style.dominated, 4, 0.45],
      [N.thinned(view.front, most), "front", view.style.front, 6, 0.9],
    ];
    const cells = metrics.length - 1;
    const layout = {
      ...base, height: 170 * cells + 110, hovermode: "closest", dragmode: "zoom", shapes: [], annotations: [], images: [],
      uirevision: "matrix", margin: { l: 90, r: 16, t: 30, b: 70 },
    };
    delete layout.xaxis;
    delete layout.yaxis;
    const data = [];
    let n = 0;
    for (let row = 1; row < metrics.length; row++) {
      for (let column = 0; column < row; column++) {
        n += 1;
        const suffix = n === 1 ? "" : String(n), gap = 0.12 / cells;
        const side = (letter, k, at, last) => {
          const [low, high] = N.range(table.values[k], view.complete);
          layout[`${letter}axis${suffix}`] = {
            ...base[`${letter}axis`], title: last ? { text: metrics[k].label } : { text: "" }, showticklabels: last,
            type: low > 0 && high / low >= LOG_SPAN ? "log" : "linear", range: undefined, autorange: true,
            tickmode: "auto", tickvals: undefined, ticktext: undefined, nticks: 4, exponentformat: "none",
            domain: [at / cells + gap / 2, (at + 1) / cells - gap / 2], anchor: `${letter === "x" ? "y" : "x"}${suffix}`,
          };
        };
        side("x", column, column, row === cells);
        side("y", row, cells - row, column === 0);
        for (const [rows, name, color, size, opacity] of groups) {
          data.push({
            type: "scatter", mode: "markers", name, legendgroup: name, showlegend: n === 1, xaxis: `x${suffix}`, yaxis: `y${suffix}`,
            x: rows.map((i) => table.values[column][i] / metrics[column].divisor),
            y: rows.map((i) => table.values[row][i] / metrics[row].divisor),
            customdata: rows.map((i) => table.number[i]), hovertemplate: "trial %{customdata}<extra></extra>",
            marker: { color, size, opacity },
          });
        }
      }
    }
    return { data, layout };
  };

  return { parallel, matrix };
})();
