// Draws each chart again with tooltips, over the drawing that is in the page already.
// Colours are CSS variables, so that a change of theme needs no new drawing.
(function () {
  "use strict";
  function escape(value) {
    return String(value).replace(/[&<>"]/g, (c) => "&#" + c.charCodeAt(0) + ";");
  }
  async function draw(figure) {
    const spec = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
    const still = figure.querySelector(".still");
    const live = document.createElement("div");
    live.className = "live";
    live.setAttribute("role", "img");
    live.setAttribute("aria-labelledby", still.querySelector("svg").getAttribute("aria-labelledby"));
    figure.insertBefore(live, still);
    try {
      await vegaEmbed(live, spec, {
        actions: false,
        ast: true,
        expr: vega.expressionInterpreter,
        renderer: "svg",
        defaultStyle: false,
        tooltip: { disableDefaultStyle: true, sanitize: escape },
      });
      // The chart says what it is once; its marks need not be read out one by one.
      for (const svg of live.querySelectorAll("svg")) svg.setAttribute("aria-hidden", "true");
      figure.classList.add("is-live");
    } catch (error) {
      live.remove();
      console.warn("The chart stays as it was drawn:", error);
    }
  }
  const seen = new IntersectionObserver(function (entries) {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        seen.unobserve(entry.target);
        draw(entry.target);
      }
    }
  }, { rootMargin: "400px" });
  for (const figure of document.querySelectorAll(".chart[data-live]")) seen.observe(figure);
})();
