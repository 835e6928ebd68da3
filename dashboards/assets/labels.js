// Dash's dropdowns, sliders and lists of boxes do not say what they are to a screen reader: a dropdown is named
// by its value alone, a slider by nothing, and real boxes and buttons stand inside roles that hide them.
(() => {
  const labelOf = (id) => {
    const label = id && document.querySelector(`label[for="${CSS.escape(id)}"]`);
    if (label && !label.id) label.id = `${id}-label`;
    return label;
  };

  const nameDropdown = (button) => {
    const label = labelOf(button.id);
    const value = document.getElementById(`${button.id}-value`);
    const names = [label?.id, value?.id].filter(Boolean).join(" ");
    if (!names || button.getAttribute("aria-labelledby") === names) return;
    button.setAttribute("aria-labelledby", names);
    button.tabIndex = 0;
    const decoy = button.parentElement.querySelector(".dash-dropdown-focus-target");
    if (decoy) decoy.tabIndex = -1; // it takes the focus, yet is hidden from whoever cannot see
  };

  const nameSlider = (slider) => {
    const label = labelOf(slider.closest(".dash-slider-container")?.id);
    if (label && slider.getAttribute("aria-labelledby") !== label.id) slider.setAttribute("aria-labelledby", label.id);
  };

  const unwrap = (list) => {
    const role = list.classList.contains("dash-radioitems") ? "radiogroup" : "group";
    if (list.getAttribute("role") !== role) list.setAttribute("role", role);
    const label = labelOf(list.id);
    if (label && !list.hasAttribute("aria-labelledby")) list.setAttribute("aria-labelledby", label.id);
    for (const option of list.querySelectorAll("label[role=option], label[aria-selected]")) {
      option.removeAttribute("role");
      option.removeAttribute("aria-selected");
    }
  };

  const mend = () => {
    document.querySelectorAll("button.dash-dropdown").forEach(nameDropdown);
    document.querySelectorAll(".dash-slider-container [role=slider]").forEach(nameSlider);
    document.querySelectorAll(".dash-radioitems, .dash-checklist").forEach(unwrap);
  };

  let asked = false;
  const seen = new MutationObserver(() => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      mend();
    });
  });
  seen.observe(document.body, {
    subtree: true,
    childList: true,
    attributes: true,
    attributeFilter: ["role", "aria-selected", "aria-labelledby"],
  });
})();
