// The page of a front: fetches the trials once, then draws, filters and links everything in the browser.
// Dash makes the page and its first figure; from then on what lies inside #front is this script's.
(() => {
  const N = hpo.numbers, T = hpo.text, F = hpo.figure, { make } = hpo;
  const EVERY_MS = 2000;
  const LINES = 400; // trials that parallel coordinates show beside the front
  const CLOUD = 300; // and the scatter matrix
  const SETTLED_MS = 120; // without a change, after which the heavier views follow

  const plotted = (id) => document.querySelector(`#${id} .js-plotly-plot`);

  class FrontPage {
    constructor(root) {
      this.root = root;
      this.feed = root.dataset.feed;
      this.study = root.dataset.study;
      this.config = JSON.parse(root.dataset.config);
      this.completed = -1;
      this.picked = null; // trial numbers brushed in the figure
      this.timer = null;
      this.settling = null;
      this.framed = 0;
    }

    get gone() { return !this.root.isConnected; }

    part(id) { return document.getElementById(id); }

    async start() {
      await this.refresh();
      this.timer = setInterval(() => {
        if (this.gone) clearInterval(this.timer);
        else if (document.visibilityState === "visible") this.refresh();
      }, EVERY_MS);
    }

    // What has changed

    async refresh() {
      const since = this.table ? this.newest : 0;
      let feed;
      try {
        const answer = await fetch(`${this.feed}?since=${since}`);
        feed = await answer.json();
        if (feed.message) return this.say(feed.message, feed.hint);
      } catch {
        return this.say("The dashboard does not answer.", "It may have been stopped; what is shown is as it was.");
      }
      if (this.gone) return undefined;
      this.say("", "");
      const another = this.table && (feed.created !== this.created
        || (feed.metrics && feed.metrics.map((m) => m.name).join() !== this.metrics.map((m) => m.name).join()));
      if (another) {
        this.table = null;
        return this.refresh();
      }
      [this.created, this.newest] = [feed.created, feed.newest];
      if (feed.columns) this.take(feed);
      return undefined;
    }

    say(message, hint) {
      const place = this.part("front-notice");
      if (!place || place.textContent === message + hint) return;
      place.replaceChildren();
      if (message) {
        place.append(make("div", { class: "notice notice-error", role: "alert" },
          make("p", { class: "notice-message" }, message), make("p", { class: "notice-hint" }, hint)));
      }
    }

    take(feed) {
      const first = !this.table;
      const news = N.read(feed);
      this.table = first ? news : N.merged(this.table, news);
      this.metrics = feed.metrics;
      this.objectives = feed.objectives;
      this.states = feed.states;
      this.completed = feed.states.indexOf("completed");
      this.style = feed.style;
      this.standing = N.standings(this.table, this.metrics, this.objectives, this.completed);
      this.complete = [];
      for (let i = 0; i < this.table.count; i++) if (this.standing[i] >= N.BEYOND) this.complete.push(i);
      this.metrics.forEach((metric, k) => { metric.modelled = this.table.modelled[k].includes(1); });
      if (first) this.begin();
      this.spans();
      this.update(true);
    }

    begin() {
      const asked = T.readAddress(window.location.search, this.metrics);
      this.state = {
        ...asked,
        x: asked.x ?? (this.metrics.length > 1 ? 1 : 0),
        y: asked.y ?? 0,
      };
      this.controls();
    }

    // What follows from the state

    update(quiet = false) {
      const limits = [...this.state.limits];
      this.inside = N.kept(this.table, this.metrics, this.standing, limits);
      this.front = N.frontUnder(this.table, this.metrics, this.objectives, this.standing, this.inside, limits);
      this.recommended = this.front.length > 2 || limits.length
        ? N.knee(this.table, this.metrics, this.objectives, this.front) : -1;
      if (!quiet) window.history.replaceState(window.history.state, "", T.writeAddress(this.state, this.metrics));
      if (!this.framed) {
        this.framed = requestAnimationFrame(() => {
          this.framed = 0;
          if (!this.gone) this.draw();
        });
      }
      clearTimeout(this.settling);
      this.settling = setTimeout(() => this.settle(), SETTLED_MS);
    }

    view() {
      const { x, y } = this.state;
      const [xs, ys] = [this.table.values[x], this.table.values[y]];
      const drawn = [];
      for (let i = 0; i < this.table.count; i++) {
        if (this.standing[i] !== N.OPEN && !Number.isNaN(xs[i]) && !Number.isNaN(ys[i])) drawn.push(i);
      }
      const kept = drawn.filter((i) => this.inside[i]);
      return {
        ...this.state, drawn, table: this.table, metrics: this.metrics, objectives: this.objectives,
        standing: this.standing, inside: this.inside, front: this.front, complete: this.complete,
        recommended: this.recommended, style: this.style, selecting: this.selecting,
        stairs: N.staircase(this.table, this.metrics, x, y, kept, drawn),
      };
    }

    draw() {
      const figure = plotted("front-graph");
      if (!figure || !window.Plotly) {
        setTimeout(() => { if (!this.gone) this.draw(); }, 50);
        return;
      }
      const view = this.view();
      this.sayWhatIsShown(view);
      for (const [key, letter] of [["logX", "x"], ["logY", "y"]]) {
        const box = this.part(`front-${key}`);
        const axis = F.axis(this.table, this.metrics[this.state[letter]], this.table.values[this.state[letter]],
          view.drawn, null, this.state[key], ["", ""]);
        if (box) box.checked = axis.logarithmic;
      }
      if (!view.drawn.length) {
        this.bringTable();
        return;
      }
      this.base ??= { ...figure.layout, height: undefined, width: undefined, autosize: true };
      const { data, layout, cloud, axes } = F.front(view, this.base);
      this.cloud = cloud && { view, cloud, axes };
      this.spots = [];
      const ranges = this.zoomed(figure, layout);
      layout.images = this.cloud ? [this.picture(figure, ranges)] : [];
      window.Plotly.react(figure, data, layout, this.config);
      this.root.dataset.drawn = String(Number(this.root.dataset.drawn || 0) + 1);
      if (!figure.dataset.linked) this.link_figure(figure);
      this.bringTable();
    }

    // The table's script is large and comes once the front is there.
    bringTable() {
      if (this.asked) return;
      this.asked = true;
      requestAnimationFrame(() => setTimeout(() => {
        if (!this.gone) window.dash_clientside.set_props("front-drawn", { data: true });
      }));
    }

    // The ranges that the axes will have: the user's zoom lasts as long as the axes do.
    zoomed(figure, layout) {
      const same = figure.layout.uirevision === layout.uirevision && this.ranges;
      return same || { x: layout.xaxis.range, y: layout.yaxis.range };
    }

    picture(figure, ranges) {
      const area = figure.querySelector(".nsewdrag")?.getBoundingClientRect();
      const { view, cloud, axes } = this.cloud;
      const { image, spots } = F.picture(view, cloud, axes, ranges, area?.width || 800, area?.height || 420);
      this.spots = spots;
      return image;
    }

    link_figure(figure) {
      figure.dataset.linked = "yes";
      figure.on("plotly_click", (event) => this.open(event.points[0].customdata));
      figure.on("plotly_selected", (event) => {
        if (this.selecting) this.pick(event && new Set([...event.points.map((p) => p.customdata), ...this.within(event.range)]
          .filter(Number.isInteger)));
      });
      figure.on("plotly_relayout", (change) => {
        if (!Object.keys(change).some((key) => /^[xy]axis\./.test(key))) return;
        const { xaxis, yaxis } = figure.layout;
        this.ranges = xaxis.autorange ? null : { x: [...xaxis.range], y: [...yaxis.range] };
        if (this.cloud) window.Plotly.relayout(figure, { images: [this.picture(figure, { x: xaxis.range, y: yaxis.range })] });
      });
      figure.on("plotly_doubleclick", () => { this.ranges = null; this.update(true); });
      const tip = make("div", { class: "tip", hidden: true });
      figure.parentElement.append(tip);
      figure.addEventListener("pointermove", (event) => this.point(figure, tip, event));
      figure.addEventListener("pointerleave", () => { tip.hidden = true; });
      let pressed = null;
      figure.addEventListener("pointerdown", (event) => { pressed = [event.clientX, event.clientY]; }, true);
      figure.addEventListener("pointerup", (event) => {
        const still = pressed && Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) < 4;
        if (still && !tip.hidden) this.open(Number(tip.dataset.number));
      }, true);
    }

    // The trial of the picture that is pointed at, Plotly knowing only those that it draws itself.
    point(figure, tip, event) {
      const area = figure.querySelector(".nsewdrag")?.getBoundingClientRect();
      let near = null, least = 8;
      if (area && this.spots?.length && !figure.querySelector(".hoverlayer .hovertext")) {
        for (const [x, y, i] of this.spots) {
          const away = Math.hypot(area.left + x * area.width - event.clientX, area.top + y * area.height - event.clientY);
          if (away < least) [least, near] = [away, i];
        }
      }
      tip.hidden = near === null;
      if (near === null) return;
      tip.dataset.number = this.table.number[near];
      tip.innerText = F.told(this.cloud.view, near).replaceAll("<br>", "\n").replace(/<\/?b>/g, "")
        .replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
      const box = tip.parentElement.getBoundingClientRect();
      tip.style.left = `${Math.min(event.clientX - box.left + 14, box.width - 240)}px`;
      tip.style.top = `${event.clientY - box.top + 14}px`;
    }

    // Numbers of the trials of the picture inside a selected range, which is in the axes' own values.
    within(range) {
      if (!range || !this.cloud) return [];
      const { view, cloud } = this.cloud;
      const inside = (k, [low, high], i) => {
        const value = this.table.values[k][i] / this.metrics[k].divisor;
        return value >= Math.min(low, high) && value <= Math.max(low, high);
      };
      return cloud.behind.flatMap(([rows]) => rows.filter((i) => inside(view.x, range.x, i) && inside(view.y, range.y, i)))
        .map((i) => this.table.number[i]);
    }

    // The heavier views, once nothing changes any more for a moment.
    settle() {
      if (this.gone) return;
      if (!this.base && this.complete.length) { // Plotly is still on its way
        this.settling = setTimeout(() => this.settle(), SETTLED_MS);
        return;
      }
      this.recommend();
      this.list();
      this.drawParallel();
      if (this.part("front-matrix-box")?.open) this.drawMatrix();
      this.root.dataset.settled = String(Number(this.root.dataset.settled || 0) + 1);
    }

    sayWhatIsShown(view) {
      const inside = view.complete.filter((i) => this.inside[i]).length;
      const limits = this.state.limits.size ? "these limits" : "the study's limits";
      const hidden = new Map();
      for (let i = 0; i < this.table.count; i++) {
        if (this.standing[i] !== N.OPEN) continue;
        const word = this.states[this.table.state[i]];
        hidden.set(word, (hidden.get(word) || 0) + 1);
      }
      const missing = this.table.count - view.drawn.length - [...hidden.values()].reduce((a, b) => a + b, 0);
      if (missing) hidden.set("without these two metrics", missing);
      const rest = [...hidden].map(([word, many]) => `${many} ${word}`).join(", ");
      this.part("front-aside").textContent =
        `${T.count(inside, "trial")} keep ${limits}, ${view.front.length} of them are the front in all objectives.`
        + (rest ? ` Not shown: ${rest}.` : "");
    }

    // The views that follow

    pick(numbers) {
      this.picked = numbers && numbers.size ? numbers : null;
      this.filter();
    }

    async list() {
      const grid = await this.grid();
      if (!grid || this.gone) return;
      if (this.listed !== `${this.created} ${this.newest}`) {
        this.listed = `${this.created} ${this.newest}`;
        grid.setGridOption("rowData", this.rows());
      }
      this.filter();
    }

    async grid() {
      for (let tries = 0; !document.getElementById("trial-table") || !window.dash_ag_grid; tries++) {
        if (this.gone || tries > 200) return null; // its script is still on its way
        await new Promise((go) => { setTimeout(go, 50); });
      }
      try {
        return await window.dash_ag_grid.getApiAsync("trial-table");
      } catch {
        return null;
      }
    }

    async filter() {
      const grid = await this.grid();
      if (!grid || this.gone) return;
      this.filtered ??= (grid.updateGridOptions({
        isExternalFilterPresent: () => this.picked !== null || this.state.limits.size > 0,
        doesExternalFilterPass: ({ data }) => this.passes(data.number),
      }), true);
      grid.onFilterChanged();
    }

    passes(number) {
      if (this.picked && !this.picked.has(number)) return false;
      return !this.state.limits.size || this.inside[this.table.place.get(number)] === 1;
    }

    rows() {
      const { table } = this, found = [];
      for (let i = 0; i < table.count; i++) {
        const cause = table.causes.get(table.number[i]), state = this.states[table.state[i]];
        const row = {
          id: String(table.number[i]), number: table.number[i], state: cause ? `${state}: ${cause}` : state,
          standing: N.WORDS[this.standing[i]], origin: table.origins[i], recipe: table.recipes[i],
          seconds: table.seconds[i], seconds_text: table.seconds[i] ? T.seconds(table.seconds[i]) : "",
        };
        for (let k = 0; k < this.objectives; k++) {
          const value = table.values[k][i], metric = this.metrics[k];
          const missing = Number.isNaN(value);
          row[metric.name] = missing ? null : value;
          row[`${metric.name}_text`] = missing ? ""
            : T.spread(metric, value, table.spreads[k][i]) + (table.modelled[k][i] ? " (modelled)" : "");
        }
        found.push(row);
      }
      return found;
    }

    drawParallel() {
      const place = this.part("front-parallel");
      if (!place || !window.Plotly || !this.base || !this.complete.length || this.objectives < 2) return;
      const { data, layout, scales } = hpo.overview.parallel(this.view(), this.base, LINES);
      this.scales = scales;
      window.Plotly.react(place, data, layout, { ...this.config, displayModeBar: false });
      if (place.dataset.linked) return;
      place.dataset.linked = "yes";
      place.on("plotly_selected", (event) => event?.range && this.brushed(event.range));
    }

    // A box dragged over axes: its lower end, where what is worse lies, is the limit of each.
    brushed(range) {
      const lower = Math.min(...range.y), [left, right] = [Math.min(...range.x), Math.max(...range.x)];
      for (let k = Math.max(0, Math.ceil(left - 0.15)); k <= Math.min(this.objectives - 1, Math.floor(right + 0.15)); k++) {
        const value = this.scales[k].value(lower);
        if (lower <= 0) this.state.limits.delete(k);
        else this.state.limits.set(k, Number(value.toPrecision(4)));
        this.showLimit(k);
      }
      this.update();
    }

    drawMatrix() {
      const place = this.part("front-matrix");
      if (!place || !window.Plotly || !this.base || this.objectives < 2) return;
      const figure = hpo.overview.matrix(this.view(), this.base, CLOUD);
      window.Plotly.react(place, figure.data, figure.layout, this.config);
      if (place.dataset.linked) return;
      place.dataset.linked = "yes";
      place.on("plotly_click", (event) => this.open(event.points[0].customdata));
    }
  }

  Object.assign(FrontPage.prototype, hpo.controls, hpo.taking);

  // Dash makes and unmakes pages; each #front that comes up is started once.
  const look = () => {
    const root = document.getElementById("front");
    if (!root || root.dataset.started) return;
    root.dataset.started = "yes";
    const page = new FrontPage(root);
    root.querySelector("#front-matrix-box")?.addEventListener("toggle", (event) => {
      if (event.target.open && page.table) page.drawMatrix();
    });
    hpo.page = page;
    page.start();
  };
  new MutationObserver(look).observe(document.documentElement, { childList: true, subtree: true });
  look();
})();
