// Which trial to take home under the limits, and the command that does it. Methods of hpo.FrontPage.
window.hpo = window.hpo || {};

hpo.taking = (() => {
  const N = hpo.numbers, T = hpo.text, { make } = hpo;

  const copied = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { // no permission, or plain HTTP from another machine
      const field = make("textarea", { "aria-hidden": "true" });
      field.value = text;
      document.body.append(field);
      field.select();
      const done = document.execCommand("copy");
      field.remove();
      return done;
    }
  };

  return {
    // The trial that is recommended, and how to take it home

    recommend() {
      const place = this.part("front-recommended");
      if (this.recommended < 0 && !this.state.limits.size) {
        place.replaceChildren(make("p", { class: "hint" }, this.complete.length
          ? "With fewer than three trials on the front there is no knee; set a limit to have one recommended."
          : "Once trials are completed, the one that trades best is recommended here."));
      } else if (this.recommended < 0) place.replaceChildren(this.impossible());
      else place.replaceChildren(...this.recommendation(this.recommended));
    },

    impossible() {
      const limits = [...this.state.limits], least = N.nearest(this.table, this.metrics, this.standing, limits);
      if (!least) return make("p", {}, "No trial keeps the study's own limits yet.");
      const [i, k, beyond] = least;
      const metric = this.metrics[k], share = T.number(100 * beyond, 2);
      return make("p", { role: "status" },
        "No trial keeps all of these limits. The nearest is ", this.link(this.table.number[i]),
        `: its ${metric.label} of ${T.value(metric, this.table.values[k][i])} is ${share} % beyond.`);
    },

    recommendation(i) {
      const number = this.table.number[i];
      const rows = this.metrics.slice(0, this.objectives).map((metric, k) => {
        const value = this.table.values[k][i];
        const ratio = metric.dense ? `${T.number(value / metric.dense, 3)} × dense` : "";
        const modelled = this.table.modelled[k][i] ? "modelled" : "";
        return make("div", { class: "tile" }, make("dt", {}, metric.label),
          make("dd", {}, T.spread(metric, value, this.table.spreads[k][i])),
          make("dd", { class: "hint" }, [ratio, modelled].filter(Boolean).join(", ")));
      });
      const command = `hpo export ${T.quoted(this.study)} ${number} --out ${T.quoted(`${this.study}-${number}`)}`;
      return [
        make("p", { role: "status" }, this.link(number), ` trades best${this.state.limits.size ? " under these limits" : ""}: `,
          `nearest to the ideal of ${T.count(this.front.length, "trial")}, all objectives scaled to them. `,
          this.table.recipes[i]),
        make("dl", { class: "tiles" }, ...rows),
        make("div", { class: "copyable" },
          make("pre", { class: "command", id: "recommended-command", tabindex: 0 }, command), this.copier(command)),
      ];
    },

    copier(text) {
      const said = make("span", { class: "hint", role: "status" });
      const button = make("button", { type: "button", class: "copy-button", onclick: async () => {
        said.textContent = await copied(text) ? "copied" : "select it and press Ctrl-C";
      } }, "Copy");
      return make("span", { class: "copier" }, button, said);
    },

    path(number) { return `/study/${encodeURIComponent(this.study)}/trial/${number}`; },

    link(number) {
      return make("a", { href: this.path(number), onclick: (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        this.open(number);
      } }, `trial ${number}`);
    },

    open(number) {
      if (Number.isInteger(number)) window.dash_clientside.set_props("url", { href: this.path(number) });
    },
  };
})();
