// Numbers and addresses as text, as hpo/format.py and dashboards/routes.py write them.
window.hpo = window.hpo || {};

hpo.text = (() => {
  const number = (value, digits = 4) => {
    if (value === 0) return "0";
    if (!Number.isFinite(value)) return String(value);
    const size = Math.abs(value);
    if (size < 1e-4 || size >= 1e7) {
      const [digitsPart, power] = value.toExponential(digits - 1).split("e");
      return `${digitsPart}e${power[0]}${power.slice(1).padStart(2, "0")}`;
    }
    const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
    const text = value.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places });
    return text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : text;
  };

  const value = (metric, raw) => `${number(raw / metric.divisor)} ${metric.unit}`.trimEnd();

  const spread = (metric, raw, deviation) => {
    if (!(deviation > 0)) return value(metric, raw);
    const low = deviation / metric.divisor;
    const places = Math.min(Math.max(0, 1 - Math.floor(Math.log10(low))), 9);
    const fixed = (x) => x.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places });
    return `${fixed(raw / metric.divisor)} ± ${fixed(low)} ${metric.unit}`.trimEnd();
  };

  const seconds = (time) => {
    if (time < 60) return `${number(time, 3)} s`;
    const whole = Math.round(time), minutes = Math.floor(whole / 60);
    if (minutes < 60) return `${minutes} min${whole % 60 ? ` ${whole % 60} s` : ""}`;
    return `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
  };

  const count = (many, noun) => `${many.toLocaleString("en-US")} ${noun}${many === 1 ? "" : "s"}`;

  // Plotly reads tags in labels; so a text is shown as it is.
  const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

  // A word for a POSIX shell.
  const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`);

  // Round numbers between two powers of ten, given as exponents.
  const logTicks = (low, high) => {
    const steps = high - low < 1.5 ? [1, 1.5, 2, 3, 5, 7] : [1, 2, 5];
    const found = [];
    for (let decade = Math.floor(low); decade < Math.ceil(high); decade++) {
      for (const step of steps) found.push(Number(`${step}e${decade}`));
    }
    return found.filter((tick) => low <= Math.log10(tick) && Math.log10(tick) <= high);
  };

  // What a person may write into the field of a limit: a value in the unit shown, or "1.1x" of the dense model's.
  const limitOf = (metric, text) => {
    const plain = text.trim().toLowerCase().replaceAll(",", "");
    const ratio = plain.match(/^([\d.]+(?:e-?\d+)?)\s*[x×]$/);
    const found = ratio
      ? (metric.dense === null ? NaN : Number(ratio[1]) * metric.dense)
      : Number(plain) * metric.divisor;
    return plain !== "" && Number.isFinite(found) ? found : null;
  };

  // The state of a page in its address: axes, colour, size, scales, limits like "perplexity<=5.2".
  const readAddress = (search, metrics) => {
    const asked = new URLSearchParams(search);
    const place = (key) => {
      const at = metrics.findIndex((metric) => metric.name === asked.get(key));
      return at < 0 ? null : at;
    };
    const limits = new Map();
    for (const text of asked.getAll("limit")) {
      const [, name, sign, worst] = text.match(/^(\w+)\s*(<=|>=)\s*([-+.\deE]+)$/) || [];
      const at = metrics.findIndex((metric) => metric.name === name);
      if (at >= 0 && Number.isFinite(Number(worst)) && metrics[at].lower === (sign === "<=")) {
        limits.set(at, Number(worst));
      }
    }
    const scale = (key) => ({ log: true, linear: false })[asked.get(key)] ?? null;
    return {
      x: place("x"), y: place("y"), colour: place("colour"), size: place("size"),
      logX: scale("scale_x"), logY: scale("scale_y"), limits,
    };
  };

  const writeAddress = (state, metrics) => {
    const said = new URLSearchParams();
    for (const key of ["x", "y", "colour", "size"]) {
      if (state[key] !== null) said.set(key, metrics[state[key]].name);
    }
    for (const [key, name] of [["logX", "scale_x"], ["logY", "scale_y"]]) {
      if (state[key] !== null) said.set(name, state[key] ? "log" : "linear");
    }
    for (const [k, worst] of state.limits) {
      said.append("limit", `${metrics[k].name}${metrics[k].lower ? "<=" : ">="}${Number(worst.toPrecision(6))}`);
    }
    return `?${said}`;
  };

  return { number, value, spread, seconds, count, escaped, quoted, logTicks, limitOf, readAddress, writeAddress };
})();
