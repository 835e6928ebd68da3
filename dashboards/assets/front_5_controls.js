// The controls of the page of a front: which metrics are shown, and the limits. Methods of hpo.FrontPage.
window.hpo = window.hpo || {};

hpo.make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
};

hpo.controls = (() => {
  const N = hpo.numbers, T = hpo.text, { make } = hpo;
  const STEPS = 200; // positions of a limit's slider

  return {
    // Between which values a limit may be set: the best and the worst of the trials that keep the study's own.
    spans() {
      const rows = this.complete.filter((i) => this.standing[i] >= N.DOMINATED);
      const among = rows.length ? rows : this.complete;
      this.ends = this.metrics.map((metric, k) => {
        const [low, high] = N.range(this.table.values[k], among);
        return metric.lower ? [low, high] : [high, low];
      });
      for (const slider of this.root.querySelectorAll("input[type=range]")) this.showLimit(Number(slider.dataset.metric));
    },

    controls() {
      const choice = (key, label, none) => {
        const select = make("select", { id: `front-${key}`, onchange: (event) => {
          const value = event.target.value, before = this.state[key];
          this.state[key] = value === "" ? null : Number(value);
          const other = { x: "y", y: "x" }[key];
          if (other && this.state[other] === this.state[key]) { // one metric against itself says nothing
            this.state[other] = before;
            this.part(`front-${other}`).value = before;
          }
          if (key === "x") this.state.logX = null;
          if (key === "y") this.state.logY = null;
          this.update();
        } });
        if (none) select.append(make("option", { value: "" }, none));
        this.metrics.forEach((metric, k) => {
          select.append(make("option", { value: k, selected: this.state[key] === k }, metric.label));
        });
        return make("label", { class: "control" }, make("span", {}, label), select);
      };
      const scale = (key, label) => make("label", { class: "control tick" }, make("input", {
        type: "checkbox", id: `front-${key}`,
        onchange: (event) => { this.state[key] = event.target.checked; this.update(); },
      }), make("span", {}, label));
      const selecting = make("label", { class: "control tick" }, make("input", {
        type: "checkbox", id: "front-selecting",
        onchange: (event) => {
          this.selecting = event.target.checked;
          if (!this.selecting) this.pick(null);
          this.draw();
        },
      }), make("span", {}, "select by dragging"));
      this.part("front-controls").replaceChildren(
        choice("x", "across"), scale("logX", "log"), choice("y", "up"), scale("logY", "log"),
        choice("colour", "colour", "by standing"), choice("size", "size", "all alike"), selecting,
      );
      const reset = make("button", { type: "button", id: "limits-reset", onclick: () => {
        this.state.limits.clear();
        this.metrics.forEach((_, k) => this.showLimit(k));
        this.update();
      } }, "No limits");
      this.part("front-limits").replaceChildren(
        ...this.metrics.slice(0, this.objectives).map((metric, k) => this.limit(metric, k)), reset,
      );
    },

    limit(metric, k) {
      const sign = metric.lower ? "≤" : "≥";
      const slider = make("input", {
        type: "range", min: 0, max: STEPS, step: 1, value: STEPS, id: `limit-${metric.name}`, "data-metric": k,
        oninput: (event) => this.setLimit(k, Number(event.target.value)),
      });
      const field = make("input", {
        type: "text", inputmode: "decimal", size: 9, class: "limit-field", placeholder: "any",
        "aria-label": `limit of ${metric.label} in ${metric.unit || "its unit"}, or 1.1x of the dense model`,
        title: `a value in ${metric.unit || "its unit"}, or 1.1x for 1.1 times the dense model's`,
        onchange: (event) => {
          const found = T.limitOf(metric, event.target.value);
          if (found === null) this.state.limits.delete(k);
          else this.state.limits.set(k, found);
          this.showLimit(k);
          this.update();
        },
      });
      const said = make("output", { for: slider.id, class: "limit-said" });
      return make("div", { class: "limit", "data-limit": k },
        make("label", { for: slider.id }, `${metric.label} ${sign}`), slider, field, said);
    },

    logarithmic(k) {
      const [best, worst] = this.ends[k];
      return Math.min(best, worst) > 0 && Math.max(best, worst) / Math.min(best, worst) >= 5;
    },

    // A slider's place and the value there; at its end there is no limit.
    at(k, step) {
      const [best, worst] = this.ends[k], share = step / STEPS;
      return this.logarithmic(k) ? best * (worst / best) ** share : best + (worst - best) * share;
    },

    stepOf(k, value) {
      const [best, worst] = this.ends[k];
      const share = this.logarithmic(k) && value > 0
        ? Math.log(value / best) / Math.log(worst / best) : (value - best) / (worst - best);
      return Math.round(STEPS * Math.min(Math.max(share, 0), 1));
    },

    setLimit(k, step) {
      if (step >= STEPS) this.state.limits.delete(k);
      else this.state.limits.set(k, Number(this.at(k, step).toPrecision(4)));
      this.showLimit(k, false);
      this.update();
    },

    showLimit(k, slides = true) {
      const row = this.root.querySelector(`[data-limit="${k}"]`);
      if (!row) return;
      const metric = this.metrics[k], worst = this.state.limits.get(k);
      const [slider, field, said] = row.querySelectorAll("input, output");
      if (slides) slider.value = worst === undefined ? STEPS : this.stepOf(k, worst);
      field.value = worst === undefined ? "" : T.number(worst / metric.divisor);
      const ratio = worst !== undefined && metric.dense ? ` = ${T.number(worst / metric.dense, 3)} × dense` : "";
      said.textContent = worst === undefined ? "no limit" : `${metric.unit}${ratio}`;
      slider.setAttribute("aria-valuetext", worst === undefined ? "no limit" : T.value(metric, worst) + ratio);
    },
  };
})();
