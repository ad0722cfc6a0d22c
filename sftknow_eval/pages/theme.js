// Remembers the theme that was chosen. Without it the choice holds for the page that is open.
(function () {
  "use strict";
  const boxes = document.querySelectorAll("input[name='theme']");
  const key = "sftknow-theme";
  let kept = null;
  try { kept = localStorage.getItem(key); } catch { return; }
  for (const box of boxes) {
    if (box.value === kept) box.checked = true;
    box.addEventListener("change", function () {
      try { localStorage.setItem(key, box.value); } catch { /* not kept, then */ }
    });
  }
})();
