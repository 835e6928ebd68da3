// Times are sent in UTC; here they are shown in the zone of whoever reads them.
(() => {
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

  const show = (root) => {
    for (const element of root.querySelectorAll("time.moment:not([data-shown])")) {
      const at = new Date(element.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      element.dataset.shown = element.dateTime;
      element.title = element.textContent;
      element.textContent = format.format(at);
    }
  };

  // React may give a shown element another time: then it is shown anew.
  const seen = new MutationObserver((changes) => {
    for (const { target, type } of changes) {
      if (type === "attributes" && target.dataset.shown !== target.dateTime) delete target.dataset.shown;
    }
    show(document);
  });
  show(document);
  seen.observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: ["datetime"] });
})();
